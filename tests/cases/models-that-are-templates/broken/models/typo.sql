/*---
template: true
---*/
select
  1 as one,
  {{ kindz }} as two

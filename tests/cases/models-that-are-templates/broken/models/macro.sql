/*---
template: true
---*/
select {{ euros() }} as x

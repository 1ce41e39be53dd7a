/*---
template: true
vars: {token: "${SECRET}"}
---*/
select {{ token | literal }} as token

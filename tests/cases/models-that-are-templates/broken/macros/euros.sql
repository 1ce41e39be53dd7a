/*---
args: []
---*/


{{ nowhere }}

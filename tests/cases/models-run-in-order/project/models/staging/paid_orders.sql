/*---
materialized: ephemeral
---*/
select * from stg_orders where status = 'paid'

/*---
materialized: incremental
key: day
cursor: day
---*/
select cast(date_trunc('day', at) as date) as day, sum(amount) as total from paid_orders group by 1

/*---
materialized: history
key: customer
---*/
select customer, max(country) as country from stg_orders group by customer

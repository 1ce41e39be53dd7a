/*---
description: Orders and what they are worth, by day; a run computes only the days from the last one on
materialized: incremental
key: day
cursor: day
columns:
  day: {tests: [not_null, unique]}
---*/
select cast(date_trunc('day', created_at) as date) as day, count(*) as orders, sum(amount) as amount
from shop.orders
group by 1

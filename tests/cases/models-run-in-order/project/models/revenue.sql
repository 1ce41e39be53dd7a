/*---
description: Paid orders by region
columns:
  region: {tests: [not_null, unique]}
  total: {tests: [{range: {min: 0}}]}
tests:
  - {reconcile: {value: sum(total), with: shop.orders, equals: "sum(amount) filter (where status = 'paid')"}}
---*/
select r.region, sum(o.amount) as total, count(*) as orders
from paid_orders o join regions r on r.country = o.country
group by r.region

/*---
description: What each country has paid and how many of its people that is, from the shop's orders and the census
columns:
  country: {tests: [not_null, unique]}
  revenue: {tests: [not_null, {range: {min: 0}}]}
tests:
  - {reconcile: {value: sum(revenue), with: shop.orders, equals: "sum(amount) filter (where status <> 'returned')"}}
---*/
select
  co.name as country,
  co.population,
  count(distinct o.customer_id) as buyers,
  sum(o.amount) as revenue
from shop.orders o
join shop.customers c on c.id = o.customer_id
join geo.countries co on co.code = c.country
where o.status <> 'returned'
group by co.name, co.population

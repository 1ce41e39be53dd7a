/*---
description: The twenty-five customers who have spent the most
key: customer_id
columns:
  customer_id: {tests: [not_null, unique]}
---*/
select
  c.id as customer_id,
  c.name,
  co.name as country,
  sum(o.amount) as spent,
  count(*) filter (where o.status in ('open', 'paid')) as open_orders
from shop.orders o
join shop.customers c on c.id = o.customer_id
left join geo.countries co on co.code = c.country
where o.status <> 'returned'
group by c.id, c.name, co.name
order by spent desc, customer_id
limit 25

/*---
materialized: view
schema: staging
---*/
select id, customer, country, status, amount, cast(amount * 100 as bigint) as cents, at from shop.orders

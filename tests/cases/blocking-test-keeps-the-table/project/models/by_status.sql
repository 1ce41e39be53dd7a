select status, count(*) as orders from shop.orders group by status

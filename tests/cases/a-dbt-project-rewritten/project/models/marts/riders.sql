/*---
description: Riders with what they owe
columns:
  rider_id: {tests: [not_null, unique]}
tests:
  - {sql: "select rider_id from riders where rides < 0", name: rides_are_counted}
  - {reconcile: {value: sum(owed), with: analytics.rides, equals: sum(price - paid)}}
---*/
select c.rider_id, c.name, c.city, count(r.ride_id) as rides, coalesce(sum(r.price - r.paid), 0) as owed
from stg_riders c
left join analytics.rides r on r.rider_id = c.rider_id
group by c.rider_id, c.name, c.city

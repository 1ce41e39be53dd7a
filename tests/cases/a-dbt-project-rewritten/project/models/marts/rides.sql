/*---
description: Every ride with what it cost and what was paid for it
materialized: incremental
cursor: day
batch_size: day
lookback: 1d
columns:
  ride_id: {tests: [not_null, unique]}
---*/
select
    r.ride_id,
    r.rider_id,
    cast(r.started_at as date) as day,
    t.name as tariff,
    cast(r.minutes * t.cents_per_minute as decimal(12, 2)) / 100 as price,
    coalesce(p.paid, 0) as paid
from stg_rides r
join tariffs t on t.tariff = r.tariff
left join (select ride_id, sum(paid) as paid from stg_payments group by ride_id) p on p.ride_id = r.ride_id

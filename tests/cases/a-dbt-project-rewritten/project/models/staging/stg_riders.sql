/*---
materialized: view
schema: staging
description: One row for each rider
columns:
  rider_id: {tests: [not_null, unique]}
---*/
select id as rider_id, trim(name) as name, upper(city) as city from app.riders

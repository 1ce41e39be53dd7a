/*---
materialized: view
schema: staging
columns:
  ride_id: {tests: [not_null, unique]}
  rider_id: {tests: [{relationships: {to: stg_riders, column: rider_id}, severity: warn}]}
  tariff: {tests: [{accepted_values: [d, n]}]}
---*/
select id as ride_id, rider as rider_id, tariff, started_at, minutes from app.rides where minutes > 0

/*---
materialized: view
schema: staging
---*/
select ride as ride_id, cast(cents as decimal(12, 2)) / 100 as paid from app.payments where status = 'ok'

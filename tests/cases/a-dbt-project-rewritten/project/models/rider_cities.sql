/*---
description: Where riders have lived, and when; dbt would call it a snapshot
materialized: history
key: rider_id
---*/
select rider_id, city from stg_riders

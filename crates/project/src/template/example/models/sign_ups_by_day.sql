/*---
description: Sign-ups by day; a run computes only the weeks that are new, and the last one again
materialized: incremental
cursor: day
batch_size: week
columns:
  day: {tests: [not_null, unique]}
---*/
select day, count(*) as sign_ups
from ads.sign_ups
group by day

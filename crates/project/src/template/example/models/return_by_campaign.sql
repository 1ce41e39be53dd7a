/*---
description: What each campaign has cost, whom it has brought, and what they have bought since
columns:
  campaign: {tests: [not_null, unique]}
  return_on_spending: {description: Revenue for each euro that was spent}
tests:
  - {reconcile: {value: sum(spent), with: ads.spending}}
---*/
with brought as (
  select s.campaign, count(distinct s.customer_id) as sign_ups, count(distinct o.customer_id) as buyers, coalesce(sum(o.amount), 0) as revenue
  from ads.sign_ups s
  left join shop.orders o on o.customer_id = s.customer_id and o.status <> 'returned'
  where s.campaign is not null
  group by s.campaign
),
costs as (
  select campaign, sum(spent) as spent from ads.spending group by campaign
)
select
  c.campaign,
  c.spent,
  coalesce(b.sign_ups, 0) as sign_ups,
  coalesce(b.buyers, 0) as buyers,
  coalesce(b.revenue, 0) as revenue,
  round(cast(coalesce(b.revenue, 0) / c.spent as double), 2) as return_on_spending
from costs c
left join brought b on b.campaign = c.campaign

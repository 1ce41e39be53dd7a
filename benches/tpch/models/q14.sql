-- Promotion effect: the share of promoted parts in a month's revenue, in percent.
select
    100.0 * cast(sum(case when p.p_type like 'PROMO%' then l.l_extendedprice * (1 - l.l_discount) else 0 end) as double)
        / cast(sum(l.l_extendedprice * (1 - l.l_discount)) as double) as promo_revenue
from tpch.lineitem l
join tpch.part p on p.p_partkey = l.l_partkey
where l.l_shipdate >= date '1995-09-01' and l.l_shipdate < date '1995-10-01'

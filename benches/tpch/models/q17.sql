-- Small-quantity orders: what they bring in a year, for one brand and container.
with usual as (
    select l_partkey, 0.2 * cast(avg(l_quantity) as double) as little from tpch.lineitem group by l_partkey
)
select cast(sum(l.l_extendedprice) as double) / 7.0 as avg_yearly
from tpch.lineitem l
join tpch.part p on p.p_partkey = l.l_partkey
join usual u on u.l_partkey = p.p_partkey
where p.p_brand = 'Brand#23' and p.p_container = 'MED BOX' and cast(l.l_quantity as double) < u.little

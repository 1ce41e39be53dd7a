-- Customer distribution: how many customers have placed how many orders, special requests left out.
with placed as (
    select c.c_custkey, count(o.o_orderkey) as c_count
    from tpch.customer c
    left join tpch.orders o on o.o_custkey = c.c_custkey and o.o_comment not like '%special%requests%'
    group by c.c_custkey
)
select c_count, count(*) as custdist
from placed
group by c_count

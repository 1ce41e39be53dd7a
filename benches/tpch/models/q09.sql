-- Product type profit: on parts with green in their name, by nation and year.
with profits as (
    select
        n.n_name as nation,
        extract(year from o.o_orderdate) as o_year,
        l.l_extendedprice * (1 - l.l_discount) - ps.ps_supplycost * l.l_quantity as amount
    from tpch.lineitem l
    join tpch.part p on p.p_partkey = l.l_partkey
    join tpch.supplier s on s.s_suppkey = l.l_suppkey
    join tpch.partsupp ps on ps.ps_suppkey = l.l_suppkey and ps.ps_partkey = l.l_partkey
    join tpch.orders o on o.o_orderkey = l.l_orderkey
    join tpch.nation n on n.n_nationkey = s.s_nationkey
    where p.p_name like '%green%'
)
select nation, o_year, sum(amount) as sum_profit
from profits
group by nation, o_year

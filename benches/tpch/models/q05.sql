-- Local supplier volume: revenue in Asia where customer and supplier are of one nation.
select n.n_name, sum(l.l_extendedprice * (1 - l.l_discount)) as revenue
from tpch.lineitem l
join tpch.orders o on o.o_orderkey = l.l_orderkey
join tpch.customer c on c.c_custkey = o.o_custkey
join tpch.supplier s on s.s_suppkey = l.l_suppkey and s.s_nationkey = c.c_nationkey
join tpch.nation n on n.n_nationkey = s.s_nationkey
join tpch.region r on r.r_regionkey = n.n_regionkey
where r.r_name = 'ASIA' and o.o_orderdate >= date '1994-01-01' and o.o_orderdate < date '1995-01-01'
group by n.n_name

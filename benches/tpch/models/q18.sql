-- Large volume customers: the hundred greatest orders of more than 300 pieces.
select c.c_name, c.c_custkey, o.o_orderkey, o.o_orderdate, o.o_totalprice, sum(l.l_quantity) as quantity
from tpch.customer c
join tpch.orders o on o.o_custkey = c.c_custkey
join tpch.lineitem l on l.l_orderkey = o.o_orderkey
where o.o_orderkey in (select l_orderkey from tpch.lineitem group by l_orderkey having sum(l_quantity) > 300)
group by c.c_name, c.c_custkey, o.o_orderkey, o.o_orderdate, o.o_totalprice
order by o.o_totalprice desc, o.o_orderdate, o.o_orderkey
limit 100

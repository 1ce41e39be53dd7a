-- Important stock: parts that make up a notable share of what Germany's suppliers hold.
with stock as (
    select ps.ps_partkey, ps.ps_supplycost * ps.ps_availqty as value
    from tpch.partsupp ps
    join tpch.supplier s on s.s_suppkey = ps.ps_suppkey
    join tpch.nation n on n.n_nationkey = s.s_nationkey
    where n.n_name = 'GERMANY'
)
select ps_partkey, sum(value) as value
from stock
group by ps_partkey
having sum(value) > (select sum(value) * 0.0001 from stock)

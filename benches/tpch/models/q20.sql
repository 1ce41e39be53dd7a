-- Potential part promotion: Canada's suppliers with more than half of a year's need of forest parts in stock.
with needed as (
    select l_partkey, l_suppkey, 0.5 * sum(l_quantity) as half
    from tpch.lineitem
    where l_shipdate >= date '1994-01-01' and l_shipdate < date '1995-01-01'
    group by l_partkey, l_suppkey
)
select s.s_name, s.s_address
from tpch.supplier s
join tpch.nation n on n.n_nationkey = s.s_nationkey
where n.n_name = 'CANADA'
  and s.s_suppkey in (
      select ps.ps_suppkey
      from tpch.partsupp ps
      join needed d on d.l_partkey = ps.ps_partkey and d.l_suppkey = ps.ps_suppkey
      where ps.ps_partkey in (select p_partkey from tpch.part where p_name like 'forest%') and ps.ps_availqty > d.half
  )

-- Suppliers who kept orders waiting: in Saudi Arabia, and alone to blame.
select s.s_name, count(*) as numwait
from tpch.supplier s
join tpch.lineitem late on late.l_suppkey = s.s_suppkey
join tpch.orders o on o.o_orderkey = late.l_orderkey
join tpch.nation n on n.n_nationkey = s.s_nationkey
where o.o_orderstatus = 'F'
  and late.l_receiptdate > late.l_commitdate
  and n.n_name = 'SAUDI ARABIA'
  and exists (
      select 1 from tpch.lineitem other where other.l_orderkey = late.l_orderkey and other.l_suppkey <> late.l_suppkey
  )
  and not exists (
      select 1 from tpch.lineitem other
      where other.l_orderkey = late.l_orderkey and other.l_suppkey <> late.l_suppkey and other.l_receiptdate > other.l_commitdate
  )
group by s.s_name
order by numwait desc, s.s_name
limit 100

-- Order priority checking: orders of a quarter of which at least one line came late.
select o_orderpriority, count(*) as order_count
from tpch.orders o
where o_orderdate >= date '1993-07-01'
  and o_orderdate < date '1993-07-01' + interval '3' month
  and exists (
      select 1 from tpch.lineitem l where l.l_orderkey = o.o_orderkey and l.l_commitdate < l.l_receiptdate
  )
group by o_orderpriority

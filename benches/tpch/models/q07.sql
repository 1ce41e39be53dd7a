-- Volume shipping: between France and Germany, by year.
with shipping as (
    select
        supplier_nation.n_name as supp_nation,
        customer_nation.n_name as cust_nation,
        extract(year from l.l_shipdate) as l_year,
        l.l_extendedprice * (1 - l.l_discount) as volume
    from tpch.lineitem l
    join tpch.supplier s on s.s_suppkey = l.l_suppkey
    join tpch.orders o on o.o_orderkey = l.l_orderkey
    join tpch.customer c on c.c_custkey = o.o_custkey
    join tpch.nation supplier_nation on supplier_nation.n_nationkey = s.s_nationkey
    join tpch.nation customer_nation on customer_nation.n_nationkey = c.c_nationkey
    where l.l_shipdate between date '1995-01-01' and date '1996-12-31'
      and (supplier_nation.n_name = 'FRANCE' and customer_nation.n_name = 'GERMANY'
        or supplier_nation.n_name = 'GERMANY' and customer_nation.n_name = 'FRANCE')
)
select supp_nation, cust_nation, l_year, sum(volume) as revenue
from shipping
group by supp_nation, cust_nation, l_year

-- National market share: Brazil's part of what America spends on one type of part, by year.
with sales as (
    select
        extract(year from o.o_orderdate) as o_year,
        l.l_extendedprice * (1 - l.l_discount) as volume,
        seller.n_name as nation
    from tpch.part p
    join tpch.lineitem l on l.l_partkey = p.p_partkey
    join tpch.supplier s on s.s_suppkey = l.l_suppkey
    join tpch.orders o on o.o_orderkey = l.l_orderkey
    join tpch.customer c on c.c_custkey = o.o_custkey
    join tpch.nation buyer on buyer.n_nationkey = c.c_nationkey
    join tpch.region r on r.r_regionkey = buyer.n_regionkey
    join tpch.nation seller on seller.n_nationkey = s.s_nationkey
    where r.r_name = 'AMERICA'
      and o.o_orderdate between date '1995-01-01' and date '1996-12-31'
      and p.p_type = 'ECONOMY ANODIZED STEEL'
)
select o_year, cast(sum(case when nation = 'BRAZIL' then volume else 0 end) as double) / cast(sum(volume) as double) as mkt_share
from sales
group by o_year

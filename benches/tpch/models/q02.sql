-- Minimum cost supplier: who in Europe sells each brass part of size 15 at the lowest price.
with offers as (
    select ps.ps_partkey, ps.ps_supplycost, s.s_acctbal, s.s_name, s.s_address, s.s_phone, s.s_comment, n.n_name
    from tpch.partsupp ps
    join tpch.supplier s on s.s_suppkey = ps.ps_suppkey
    join tpch.nation n on n.n_nationkey = s.s_nationkey
    join tpch.region r on r.r_regionkey = n.n_regionkey
    where r.r_name = 'EUROPE'
),
cheapest as (
    select ps_partkey, min(ps_supplycost) as lowest from offers group by ps_partkey
)
select o.s_acctbal, o.s_name, o.n_name, p.p_partkey, p.p_mfgr, o.s_address, o.s_phone, o.s_comment
from tpch.part p
join offers o on o.ps_partkey = p.p_partkey
join cheapest c on c.ps_partkey = o.ps_partkey and c.lowest = o.ps_supplycost
where p.p_size = 15 and p.p_type like '%BRASS'
order by o.s_acctbal desc, o.n_name, o.s_name, p.p_partkey
limit 100

-- Global sales opportunity: well-off customers of seven countries who have never ordered.
with people as (
    select substring(c_phone from 1 for 2) as cntrycode, c_acctbal, c_custkey
    from tpch.customer
    where substring(c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17')
)
select cntrycode, count(*) as numcust, sum(c_acctbal) as totacctbal
from people p
where c_acctbal > (select avg(c_acctbal) from people where c_acctbal > 0.00)
  and not exists (select 1 from tpch.orders o where o.o_custkey = p.c_custkey)
group by cntrycode

//! Column lineage, held against expectations written by hand: the queries of TPC-H, and what they do not use.
//!
//! The queries are those of the TPC-H specification (revision 3.0.1, section 2.4) with its validation parameters; the fifteenth has its view as a
//! common table expression.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use trib_core::{Result, TableName};
use trib_engine::lineage::{Step, origins};
use trib_engine::{Engine, Queries, Relation, Tables};

#[derive(Debug)]
struct Tpch;

const TABLES: [(&str, &str); 8] = [
    ("part", "p_partkey:i p_name p_mfgr p_brand p_type p_size:i p_container p_retailprice:n p_comment"),
    ("supplier", "s_suppkey:i s_name s_address s_nationkey:i s_phone s_acctbal:n s_comment"),
    ("partsupp", "ps_partkey:i ps_suppkey:i ps_availqty:i ps_supplycost:n ps_comment"),
    ("customer", "c_custkey:i c_name c_address c_nationkey:i c_phone c_acctbal:n c_mktsegment c_comment"),
    ("orders", "o_orderkey:i o_custkey:i o_orderstatus o_totalprice:n o_orderdate:d o_orderpriority o_clerk o_shippriority:i o_comment"),
    (
        "lineitem",
        "l_orderkey:i l_partkey:i l_suppkey:i l_linenumber:i l_quantity:n l_extendedprice:n l_discount:n l_tax:n l_returnflag l_linestatus \
         l_shipdate:d l_commitdate:d l_receiptdate:d l_shipinstruct l_shipmode l_comment",
    ),
    ("nation", "n_nationkey:i n_name n_regionkey:i n_comment"),
    ("region", "r_regionkey:i r_name r_comment"),
];

#[async_trait]
impl Tables for Tpch {
    async fn find(&self, name: &TableName) -> Result<Option<Relation>> {
        let Some((_, columns)) = TABLES.iter().find(|(table, _)| *table == name.name) else { return Ok(None) };
        let fields: Vec<Field> = columns
            .split_whitespace()
            .map(|c| match c.split_once(':') {
                Some((name, "i")) => Field::new(name, DataType::Int64, false),
                Some((name, "n")) => Field::new(name, DataType::Decimal128(15, 2), false),
                Some((name, _)) => Field::new(name, DataType::Date32, false),
                None => Field::new(c, DataType::Utf8, false),
            })
            .collect();
        Ok(Some(Relation::Table(Arc::new(MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]]).unwrap()))))
    }
}

/// `name = table.column …` for each column, one a line; `~` marks what is transformed, `*` what is aggregated.
async fn lineage(sql: &str) -> String {
    let spill = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lineage");
    let queries = Queries::new(Engine::new(64 << 20, &spill, 1).unwrap(), Arc::new(Tpch));
    let frame = queries.frame(sql).await.unwrap_or_else(|e| panic!("{e:?}\n{sql}"));
    let mut lines = Vec::new();
    for (field, found) in frame.schema().fields().iter().zip(origins(frame.logical_plan()).unwrap()) {
        let mut line = format!("{} =", field.name());
        for ((table, column), step) in found {
            let mark = match step {
                Step::Identity => "",
                Step::Transformed => "~",
                Step::Aggregated => "*",
            };
            line.push_str(&format!(" {mark}{}.{column}", table.name));
        }
        lines.push(line);
    }
    lines.join("\n")
}

async fn check(cases: &[(&str, &[&str])]) {
    for (sql, expected) in cases {
        assert_eq!(lineage(sql).await, expected.join("\n"), "{sql}");
    }
}

#[tokio::test]
async fn tpch_1_to_11() {
    check(&[
        (
            "select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty, sum(l_extendedprice) as sum_base_price,
               sum(l_extendedprice * (1 - l_discount)) as sum_disc_price, sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
               avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price, avg(l_discount) as avg_disc, count(*) as count_order
             from lineitem where l_shipdate <= date '1998-12-01' - interval '90' day
             group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus",
            &[
                "l_returnflag = lineitem.l_returnflag",
                "l_linestatus = lineitem.l_linestatus",
                "sum_qty = *lineitem.l_quantity",
                "sum_base_price = *lineitem.l_extendedprice",
                "sum_disc_price = *lineitem.l_discount *lineitem.l_extendedprice",
                "sum_charge = *lineitem.l_discount *lineitem.l_extendedprice *lineitem.l_tax",
                "avg_qty = *lineitem.l_quantity",
                "avg_price = *lineitem.l_extendedprice",
                "avg_disc = *lineitem.l_discount",
                "count_order =",
            ],
        ),
        (
            "select s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
             from part, supplier, partsupp, nation, region
             where p_partkey = ps_partkey and s_suppkey = ps_suppkey and p_size = 15 and p_type like '%BRASS' and s_nationkey = n_nationkey
               and n_regionkey = r_regionkey and r_name = 'EUROPE' and ps_supplycost = (
                 select min(ps_supplycost) from partsupp, supplier, nation, region
                 where p_partkey = ps_partkey and s_suppkey = ps_suppkey and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'EUROPE')
             order by s_acctbal desc, n_name, s_name, p_partkey limit 100",
            &[
                "s_acctbal = supplier.s_acctbal",
                "s_name = supplier.s_name",
                "n_name = nation.n_name",
                "p_partkey = part.p_partkey",
                "p_mfgr = part.p_mfgr",
                "s_address = supplier.s_address",
                "s_phone = supplier.s_phone",
                "s_comment = supplier.s_comment",
            ],
        ),
        (
            "select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
             from customer, orders, lineitem
             where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey and o_orderdate < date '1995-03-15'
               and l_shipdate > date '1995-03-15'
             group by l_orderkey, o_orderdate, o_shippriority order by revenue desc, o_orderdate limit 10",
            &[
                "l_orderkey = lineitem.l_orderkey",
                "revenue = *lineitem.l_discount *lineitem.l_extendedprice",
                "o_orderdate = orders.o_orderdate",
                "o_shippriority = orders.o_shippriority",
            ],
        ),
        (
            "select o_orderpriority, count(*) as order_count from orders
             where o_orderdate >= date '1993-07-01' and o_orderdate < date '1993-07-01' + interval '3' month
               and exists (select * from lineitem where l_orderkey = o_orderkey and l_commitdate < l_receiptdate)
             group by o_orderpriority order by o_orderpriority",
            &["o_orderpriority = orders.o_orderpriority", "order_count ="],
        ),
        (
            "select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
             from customer, orders, lineitem, supplier, nation, region
             where c_custkey = o_custkey and l_orderkey = o_orderkey and l_suppkey = s_suppkey and c_nationkey = s_nationkey
               and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'ASIA'
               and o_orderdate >= date '1994-01-01' and o_orderdate < date '1994-01-01' + interval '1' year
             group by n_name order by revenue desc",
            &["n_name = nation.n_name", "revenue = *lineitem.l_discount *lineitem.l_extendedprice"],
        ),
        (
            "select sum(l_extendedprice * l_discount) as revenue from lineitem
             where l_shipdate >= date '1994-01-01' and l_shipdate < date '1994-01-01' + interval '1' year
               and l_discount between 0.06 - 0.01 and 0.06 + 0.01 and l_quantity < 24",
            &["revenue = *lineitem.l_discount *lineitem.l_extendedprice"],
        ),
        (
            "select supp_nation, cust_nation, l_year, sum(volume) as revenue from (
               select n1.n_name as supp_nation, n2.n_name as cust_nation, extract(year from l_shipdate) as l_year,
                 l_extendedprice * (1 - l_discount) as volume
               from supplier, lineitem, orders, customer, nation n1, nation n2
               where s_suppkey = l_suppkey and o_orderkey = l_orderkey and c_custkey = o_custkey and s_nationkey = n1.n_nationkey
                 and c_nationkey = n2.n_nationkey
                 and ((n1.n_name = 'FRANCE' and n2.n_name = 'GERMANY') or (n1.n_name = 'GERMANY' and n2.n_name = 'FRANCE'))
                 and l_shipdate between date '1995-01-01' and date '1996-12-31') as shipping
             group by supp_nation, cust_nation, l_year order by supp_nation, cust_nation, l_year",
            &[
                "supp_nation = nation.n_name",
                "cust_nation = nation.n_name",
                "l_year = ~lineitem.l_shipdate",
                "revenue = *lineitem.l_discount *lineitem.l_extendedprice",
            ],
        ),
        (
            "select o_year, sum(case when nation = 'BRAZIL' then volume else 0 end) / sum(volume) as mkt_share from (
               select extract(year from o_orderdate) as o_year, l_extendedprice * (1 - l_discount) as volume, n2.n_name as nation
               from part, supplier, lineitem, orders, customer, nation n1, nation n2, region
               where p_partkey = l_partkey and s_suppkey = l_suppkey and l_orderkey = o_orderkey and o_custkey = c_custkey
                 and c_nationkey = n1.n_nationkey and n1.n_regionkey = r_regionkey and r_name = 'AMERICA' and s_nationkey = n2.n_nationkey
                 and o_orderdate between date '1995-01-01' and date '1996-12-31' and p_type = 'ECONOMY ANODIZED STEEL') as all_nations
             group by o_year order by o_year",
            &["o_year = ~orders.o_orderdate", "mkt_share = *lineitem.l_discount *lineitem.l_extendedprice *nation.n_name"],
        ),
        (
            "select nation, o_year, sum(amount) as sum_profit from (
               select n_name as nation, extract(year from o_orderdate) as o_year,
                 l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity as amount
               from part, supplier, lineitem, partsupp, orders, nation
               where s_suppkey = l_suppkey and ps_suppkey = l_suppkey and ps_partkey = l_partkey and p_partkey = l_partkey
                 and o_orderkey = l_orderkey and s_nationkey = n_nationkey and p_name like '%green%') as profit
             group by nation, o_year order by nation, o_year desc",
            &[
                "nation = nation.n_name",
                "o_year = ~orders.o_orderdate",
                "sum_profit = *lineitem.l_discount *lineitem.l_extendedprice *lineitem.l_quantity *partsupp.ps_supplycost",
            ],
        ),
        (
            "select c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) as revenue, c_acctbal, n_name, c_address, c_phone, c_comment
             from customer, orders, lineitem, nation
             where c_custkey = o_custkey and l_orderkey = o_orderkey and o_orderdate >= date '1993-10-01'
               and o_orderdate < date '1993-10-01' + interval '3' month and l_returnflag = 'R' and c_nationkey = n_nationkey
             group by c_custkey, c_name, c_acctbal, c_phone, n_name, c_address, c_comment order by revenue desc limit 20",
            &[
                "c_custkey = customer.c_custkey",
                "c_name = customer.c_name",
                "revenue = *lineitem.l_discount *lineitem.l_extendedprice",
                "c_acctbal = customer.c_acctbal",
                "n_name = nation.n_name",
                "c_address = customer.c_address",
                "c_phone = customer.c_phone",
                "c_comment = customer.c_comment",
            ],
        ),
        (
            "select ps_partkey, sum(ps_supplycost * ps_availqty) as value from partsupp, supplier, nation
             where ps_suppkey = s_suppkey and s_nationkey = n_nationkey and n_name = 'GERMANY'
             group by ps_partkey having sum(ps_supplycost * ps_availqty) > (
               select sum(ps_supplycost * ps_availqty) * 0.0001 from partsupp, supplier, nation
               where ps_suppkey = s_suppkey and s_nationkey = n_nationkey and n_name = 'GERMANY')
             order by value desc",
            &["ps_partkey = partsupp.ps_partkey", "value = *partsupp.ps_availqty *partsupp.ps_supplycost"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn tpch_12_to_22() {
    check(&[
        (
            "select l_shipmode, sum(case when o_orderpriority = '1-URGENT' or o_orderpriority = '2-HIGH' then 1 else 0 end) as high_line_count,
               sum(case when o_orderpriority <> '1-URGENT' and o_orderpriority <> '2-HIGH' then 1 else 0 end) as low_line_count
             from orders, lineitem
             where o_orderkey = l_orderkey and l_shipmode in ('MAIL', 'SHIP') and l_commitdate < l_receiptdate and l_shipdate < l_commitdate
               and l_receiptdate >= date '1994-01-01' and l_receiptdate < date '1994-01-01' + interval '1' year
             group by l_shipmode order by l_shipmode",
            &[
                "l_shipmode = lineitem.l_shipmode",
                "high_line_count = *orders.o_orderpriority",
                "low_line_count = *orders.o_orderpriority",
            ],
        ),
        (
            "select c_count, count(*) as custdist from (
               select c_custkey, count(o_orderkey) as c_count
               from customer left outer join orders on c_custkey = o_custkey and o_comment not like '%special%requests%'
               group by c_custkey) as c_orders
             group by c_count order by custdist desc, c_count desc",
            &["c_count = *orders.o_orderkey", "custdist ="],
        ),
        (
            "select 100.00 * sum(case when p_type like 'PROMO%' then l_extendedprice * (1 - l_discount) else 0 end)
               / sum(l_extendedprice * (1 - l_discount)) as promo_revenue
             from lineitem, part
             where l_partkey = p_partkey and l_shipdate >= date '1995-09-01' and l_shipdate < date '1995-09-01' + interval '1' month",
            &["promo_revenue = *lineitem.l_discount *lineitem.l_extendedprice *part.p_type"],
        ),
        (
            "with revenue as (
               select l_suppkey as supplier_no, sum(l_extendedprice * (1 - l_discount)) as total_revenue from lineitem
               where l_shipdate >= date '1996-01-01' and l_shipdate < date '1996-01-01' + interval '3' month group by l_suppkey)
             select s_suppkey, s_name, s_address, s_phone, total_revenue from supplier, revenue
             where s_suppkey = supplier_no and total_revenue = (select max(total_revenue) from revenue) order by s_suppkey",
            &[
                "s_suppkey = supplier.s_suppkey",
                "s_name = supplier.s_name",
                "s_address = supplier.s_address",
                "s_phone = supplier.s_phone",
                "total_revenue = *lineitem.l_discount *lineitem.l_extendedprice",
            ],
        ),
        (
            "select p_brand, p_type, p_size, count(distinct ps_suppkey) as supplier_cnt from partsupp, part
             where p_partkey = ps_partkey and p_brand <> 'Brand#45' and p_type not like 'MEDIUM POLISHED%'
               and p_size in (49, 14, 23, 45, 19, 3, 36, 9)
               and ps_suppkey not in (select s_suppkey from supplier where s_comment like '%Customer%Complaints%')
             group by p_brand, p_type, p_size order by supplier_cnt desc, p_brand, p_type, p_size",
            &["p_brand = part.p_brand", "p_type = part.p_type", "p_size = part.p_size", "supplier_cnt = *partsupp.ps_suppkey"],
        ),
        (
            "select sum(l_extendedprice) / 7.0 as avg_yearly from lineitem, part
             where p_partkey = l_partkey and p_brand = 'Brand#23' and p_container = 'MED BOX'
               and l_quantity < (select 0.2 * avg(l_quantity) from lineitem where l_partkey = p_partkey)",
            &["avg_yearly = *lineitem.l_extendedprice"],
        ),
        (
            "select c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) as quantity from customer, orders, lineitem
             where o_orderkey in (select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > 300)
               and c_custkey = o_custkey and o_orderkey = l_orderkey
             group by c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice order by o_totalprice desc, o_orderdate limit 100",
            &[
                "c_name = customer.c_name",
                "c_custkey = customer.c_custkey",
                "o_orderkey = orders.o_orderkey",
                "o_orderdate = orders.o_orderdate",
                "o_totalprice = orders.o_totalprice",
                "quantity = *lineitem.l_quantity",
            ],
        ),
        (
            "select sum(l_extendedprice * (1 - l_discount)) as revenue from lineitem, part
             where (p_partkey = l_partkey and p_brand = 'Brand#12' and p_container in ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
                 and l_quantity >= 1 and l_quantity <= 11 and p_size between 1 and 5 and l_shipmode in ('AIR', 'AIR REG')
                 and l_shipinstruct = 'DELIVER IN PERSON')
               or (p_partkey = l_partkey and p_brand = 'Brand#23' and p_container in ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
                 and l_quantity >= 10 and l_quantity <= 20 and p_size between 1 and 10 and l_shipmode in ('AIR', 'AIR REG')
                 and l_shipinstruct = 'DELIVER IN PERSON')",
            &["revenue = *lineitem.l_discount *lineitem.l_extendedprice"],
        ),
        (
            "select s_name, s_address from supplier, nation
             where s_suppkey in (
                 select ps_suppkey from partsupp
                 where ps_partkey in (select p_partkey from part where p_name like 'forest%')
                   and ps_availqty > (select 0.5 * sum(l_quantity) from lineitem
                     where l_partkey = ps_partkey and l_suppkey = ps_suppkey and l_shipdate >= date '1994-01-01'
                       and l_shipdate < date '1994-01-01' + interval '1' year))
               and s_nationkey = n_nationkey and n_name = 'CANADA' order by s_name",
            &["s_name = supplier.s_name", "s_address = supplier.s_address"],
        ),
        (
            "select s_name, count(*) as numwait from supplier, lineitem l1, orders, nation
             where s_suppkey = l1.l_suppkey and o_orderkey = l1.l_orderkey and o_orderstatus = 'F' and l1.l_receiptdate > l1.l_commitdate
               and exists (select * from lineitem l2 where l2.l_orderkey = l1.l_orderkey and l2.l_suppkey <> l1.l_suppkey)
               and not exists (select * from lineitem l3 where l3.l_orderkey = l1.l_orderkey and l3.l_suppkey <> l1.l_suppkey
                 and l3.l_receiptdate > l3.l_commitdate)
               and s_nationkey = n_nationkey and n_name = 'SAUDI ARABIA'
             group by s_name order by numwait desc, s_name limit 100",
            &["s_name = supplier.s_name", "numwait ="],
        ),
        (
            "select cntrycode, count(*) as numcust, sum(c_acctbal) as totacctbal from (
               select substring(c_phone from 1 for 2) as cntrycode, c_acctbal from customer
               where substring(c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17')
                 and c_acctbal > (select avg(c_acctbal) from customer where c_acctbal > 0.00
                   and substring(c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17'))
                 and not exists (select * from orders where o_custkey = c_custkey)) as custsale
             group by cntrycode order by cntrycode",
            &["cntrycode = ~customer.c_phone", "numcust =", "totacctbal = *customer.c_acctbal"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_tpch_does_not_use() {
    check(&[
        ("select * from region", &["r_regionkey = region.r_regionkey", "r_name = region.r_name", "r_comment = region.r_comment"]),
        (
            "select r.*, n_name as name from region r join nation on r_regionkey = n_regionkey",
            &["r_regionkey = region.r_regionkey", "r_name = region.r_name", "r_comment = region.r_comment", "name = nation.n_name"],
        ),
        (
            "select n_name as name from nation union all select upper(r_name) from region union select c_name from customer",
            &["name = customer.c_name nation.n_name ~region.r_name"],
        ),
        (
            "with a as (select n_name, n_regionkey k from nation), b as (select * from a where k > 1) select k, n_name || '!' as n from b",
            &["k = nation.n_regionkey", "n = ~nation.n_name"],
        ),
        (
            "select o_orderkey, row_number() over (partition by o_custkey order by o_orderdate) as n,
               sum(o_totalprice) over (partition by o_custkey) as total from orders",
            &[
                "o_orderkey = orders.o_orderkey",
                "n = *orders.o_custkey *orders.o_orderdate",
                "total = *orders.o_custkey *orders.o_totalprice",
            ],
        ),
        (
            "select n_name, (select max(c_acctbal) from customer where c_nationkey = n_nationkey) as richest from nation",
            &["n_name = nation.n_name", "richest = *customer.c_acctbal"],
        ),
        ("select distinct coalesce(n_name, n_comment) as x, 1 as one from nation", &["x = ~nation.n_comment ~nation.n_name", "one ="]),
        (
            "select distinct on (o_custkey) o_custkey, o_totalprice from orders order by o_custkey, o_orderdate desc",
            &["o_custkey = orders.o_custkey", "o_totalprice = orders.o_totalprice"],
        ),
        (
            "select n_regionkey, n_name, count(*) as c from nation group by rollup (n_regionkey, n_name)",
            &["n_regionkey = nation.n_regionkey", "n_name = nation.n_name", "c ="],
        ),
        (
            "with recursive up as (select n_nationkey as k, n_name as name from nation union all select k + 1, name from up where k < 3)
             select k, name from up",
            &["k = nation.n_nationkey", "name = nation.n_name"],
        ),
        ("select c_custkey from customer intersect select o_custkey from orders", &["c_custkey = customer.c_custkey"]),
        ("values (1, 'a')", &["column1 =", "column2 ="]),
    ])
    .await;
}

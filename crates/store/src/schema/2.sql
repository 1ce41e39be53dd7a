-- What data tests have found, in runs and in `trib test`. Rows are a JSON list of the first ones that a test did not want.
create table trib_tests (
    id @serial,
    environment text not null,
    run text not null,
    node text not null,
    stream text not null,
    test text not null,
    severity text not null,
    status text not null,
    failures bigint not null,
    failing_rows text not null,
    published text not null,
    error text,
    tested_at text not null
);
create index trib_tests_by_node on trib_tests (environment, node, id);

-- Times are text in UTC (RFC 3339, microseconds); JSON is text. Every table is kept per environment.

-- Who may commit for a sync. The row stays after its release, since the generation only ever grows.
create table trib_leases (
    environment text not null,
    sync text not null,
    generation bigint not null,
    holder text,
    live text,
    since text,
    renewed_at text,
    expires_at text,
    ttl_ms bigint not null,
    primary key (environment, sync)
);

-- How far each scope of a sync has come, and the load that is on its way.
create table trib_scopes (
    environment text not null,
    sync text not null,
    scope text not null,
    number bigint not null,
    load text,
    state text not null,
    staged text,
    staged_at text,
    pruned_at text,
    updated_at text not null,
    primary key (environment, sync, scope)
);

create table trib_loads (
    environment text not null,
    load text not null,
    sync text not null,
    scope text not null,
    number bigint not null,
    generation bigint not null,
    run text not null,
    rows bigint not null,
    outcome text not null,
    from_state text not null,
    to_state text not null,
    committed_at text not null,
    primary key (environment, load)
);
create index trib_loads_by_scope on trib_loads (environment, sync, scope);

create table trib_schema_changes (
    id @serial,
    environment text not null,
    run text not null,
    sync text not null,
    scope text not null,
    load text not null,
    table_name text not null,
    change text not null,
    description text not null,
    changed_at text not null
);

create table trib_runs (
    environment text not null,
    id text not null,
    command text not null,
    selection text not null,
    project_version text,
    job text,
    holder text not null,
    live text not null,
    status text not null,
    error text,
    started_at text not null,
    seen_at text not null,
    finished_at text,
    cancel_requested_at text,
    approved_by text,
    approved_at text,
    primary key (environment, id)
);
create index trib_runs_by_time on trib_runs (environment, started_at);

create table trib_run_streams (
    environment text not null,
    run text not null,
    sync text not null,
    stream text not null,
    status text not null,
    rows_read bigint not null,
    rows_written bigint not null,
    rows_updated bigint not null,
    rows_deleted bigint not null,
    rows_rejected bigint not null,
    bytes bigint not null,
    from_state text,
    to_state text,
    schema_changes text,
    error text,
    started_at text not null,
    finished_at text,
    primary key (environment, run, sync, stream)
);

create table trib_logs (
    id @serial,
    environment text not null,
    run text not null,
    logged_at text not null,
    level text not null,
    sync text,
    stream text,
    message text not null,
    fields text
);
create index trib_logs_by_run on trib_logs (environment, run, id);

-- Rows count once their load is committed: until then their status is 'staged', then 'waiting'. They are 'retrying' while a load (named by retried_by) is on its
-- way with them, and 'retried' (by the run that retried_by names then) once that is committed.
create table trib_rejected (
    id @serial,
    environment text not null,
    run text not null,
    sync text not null,
    scope text not null,
    load text not null,
    place text not null,
    reason text not null,
    row_json text not null,
    status text not null,
    rejected_at text not null,
    retried_by text,
    retried_at text
);
create index trib_rejected_by_load on trib_rejected (environment, load);
create index trib_rejected_by_scope on trib_rejected (environment, status, sync, scope);

create table trib_paused (
    environment text not null,
    node text not null,
    paused_by text not null,
    reason text,
    paused_at text not null,
    primary key (environment, node)
);

create table trib_meta (
    environment text not null,
    key text not null,
    value text not null,
    primary key (environment, key)
);

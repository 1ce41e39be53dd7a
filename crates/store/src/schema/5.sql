-- What tells that a row which is rejected once more was rejected before.
alter table trib_rejected add column identity text;

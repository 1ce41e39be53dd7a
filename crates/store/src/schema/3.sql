-- What a test has measured, for those that compare with earlier runs.
alter table trib_tests add column measured text;

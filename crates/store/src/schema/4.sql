-- The definition that all rows of a model's table come from.
alter table trib_scopes add column made_from text;

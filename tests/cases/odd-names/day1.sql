create table "Order Details" ("Id" integer primary key, "Größe (cm)" integer, "select" text, "a b" text, "Имя" text);
insert into "Order Details" values (1, 10, 'from', ' x ', 'Аня'), (2, null, '', 'it''s', null);
create table "we""ird" (x text);
insert into "we""ird" values ('drop table "we""ird"; --');

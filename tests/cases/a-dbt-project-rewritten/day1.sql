create table riders (id integer primary key, name text, city text);
create table rides (id integer primary key, rider integer, tariff text, started_at timestamp, minutes integer);
create table payments (id integer primary key, ride integer, cents integer, status text);
insert into riders values (1, ' Ada ', 'Bonn'), (2, 'Ben', 'ulm');
insert into rides values (1, 1, 'd', '2024-05-01 08:00:00', 20), (2, 2, 'n', '2024-05-01 23:30:00', 10), (3, 1, 'd', '2024-05-02 09:00:00', 0);
insert into payments values (1, 1, 300, 'ok'), (2, 2, 250, 'refused');

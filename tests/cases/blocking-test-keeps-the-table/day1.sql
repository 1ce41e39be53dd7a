create table customers (id integer primary key, name text);
create table orders (id integer primary key, status text not null);
insert into customers values (1, 'ann');
insert into orders values (1, 'open'), (2, 'paid');

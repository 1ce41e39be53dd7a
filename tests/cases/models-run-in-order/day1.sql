create table orders (id integer primary key, customer text not null, country text not null, status text not null, amount decimal(10, 2) not null, at timestamp not null);
insert into orders values
  (1, 'ann', 'US', 'paid', 10.00, '2024-03-01 10:00:00'),
  (2, 'bob', 'DE', 'paid', 20.50, '2024-03-01 11:00:00'),
  (3, 'cid', 'US', 'open', 99.00, '2024-03-02 09:00:00'),
  (4, 'ann', 'US', 'paid', 5.25, '2024-03-02 12:00:00');

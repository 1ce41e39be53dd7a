create table orders (id integer primary key, country text not null, updated_at timestamp);
insert into orders values
  (1, 'DE', '2025-03-01 10:00:00'),
  (2, 'DE', null),
  (3, 'FR', '2025-03-01 11:00:00'),
  (4, 'DE', '2025-03-01 12:00:00'),
  (5, 'FR', null),
  (6, 'US', null);

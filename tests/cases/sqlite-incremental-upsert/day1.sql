create table orders (id integer primary key, status text, amount decimal(12,2), updated_at timestamp);
insert into orders values
  (1, 'paid', '10.10', '2025-03-01 10:00:00'),
  (2, 'open', '0.05', '2025-03-01 11:00:00'),
  (3, 'open', '99999999.99', '2025-03-01 12:00:00'),
  (4, 'lost', '4.00', null);

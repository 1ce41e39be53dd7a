update orders set country = 'DE' where customer = 'ann';
insert into orders values
  (5, 'dee', 'FR', 'paid', 7.00, '2024-03-02 13:00:00'),
  (6, 'bob', 'DE', 'paid', 1.00, '2024-03-03 08:00:00');

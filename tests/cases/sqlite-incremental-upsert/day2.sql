update orders set status = 'paid', updated_at = '2025-03-02 09:00:00' where id = 2;
delete from orders where id = 1;
insert into orders values
  (5, 'late', '5.50', '2025-03-01 12:00:00'),
  (6, 'open', '-6.00', '2025-03-02 10:00:00');

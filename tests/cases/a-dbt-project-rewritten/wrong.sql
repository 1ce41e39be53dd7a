insert into rides values (5, 2, 'x', '2024-05-03 10:00:00', 30);

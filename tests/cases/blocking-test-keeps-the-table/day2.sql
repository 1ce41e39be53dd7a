insert into orders values (3, 'lost');

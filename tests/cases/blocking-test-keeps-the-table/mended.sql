update orders set status = 'paid' where id = 3;

update riders set city = 'Kiel' where id = 2;
update payments set status = 'ok' where id = 2;
insert into rides values (4, 2, 'd', '2024-05-02 10:00:00', 30);

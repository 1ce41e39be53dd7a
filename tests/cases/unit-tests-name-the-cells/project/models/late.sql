select i.id, date_part('day', now() - i.due) as days, coalesce(sum(p.amount), 0) as paid
from shop.invoices i left join shop.payments p on p.invoice = i.id
where i.due < current_date
group by i.id, i.due

/*---
template: true
vars: {kinds: [voucher, cash]}
---*/
select kind, {{ euros('cents', digits=1) }} as euros, {{ since | literal }} as since
from payments
where kind in {{ kinds | literal }}
{% if environment == 'prod' %}and cents > 100{% endif %}

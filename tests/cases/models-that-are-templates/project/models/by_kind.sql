/*---
description: Payments of each kind that is asked for, one select each
template: true
---*/
{% for kind in kinds %}
select {{ kind | literal }} as kind, {{ euros('sum(cents)') }} as total from payments where kind = {{ kind | literal }}
{% if not loop.last %}union all{% endif %}
{% endfor %}

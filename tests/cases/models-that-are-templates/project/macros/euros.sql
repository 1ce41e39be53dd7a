/*---
description: Cents as euros
args: [column, {digits: 2}]
---*/
round(cast({{ column }} as decimal(12, 2)) / 100, {{ digits }})

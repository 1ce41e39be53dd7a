# ---
# description: Sign-ups to be expected in the two weeks after the last day that is known
# reads: [sign_ups_by_day]
# format: json # so that Python's own library suffices
# columns:
#   day: {type: date, tests: [not_null, unique]}
#   expected: {type: double, tests: [{range: {min: 0}}]}
# ---
"""A straight line through the days, by least squares, times how each day of the week differs from it."""

import datetime
import json
import sys

DAYS = 14

with open(f"{sys.argv[1]}/sign_ups_by_day.jsonl", encoding="utf-8") as file:
    known = {datetime.date.fromisoformat(row["day"]): row["sign_ups"] for row in map(json.loads, file)}

first, last = min(known), max(known)
days = [first + datetime.timedelta(n) for n in range((last - first).days + 1)]
values = [known.get(day, 0) for day in days]

middle, mean = (len(days) - 1) / 2, sum(values) / len(values)
spread = sum((n - middle) ** 2 for n in range(len(days)))
slope = sum((n - middle) * (value - mean) for n, value in enumerate(values)) / spread if spread else 0.0


def trend(day):
    return max(0.0, mean + slope * ((day - first).days - middle))


def weekday(day):
    """The share of the trend that days like this one have had."""
    alike = [known_day for known_day in days if known_day.weekday() == day.weekday()]
    expected = sum(trend(known_day) for known_day in alike)
    return sum(known.get(known_day, 0) for known_day in alike) / expected if expected else 1.0


print(f"{len(days)} days are known, {sum(values)} sign-ups", file=sys.stderr)
for n in range(1, DAYS + 1):
    day = last + datetime.timedelta(n)
    print(json.dumps({"day": day.isoformat(), "expected": round(trend(day) * weekday(day), 1)}))

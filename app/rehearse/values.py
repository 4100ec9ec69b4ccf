"""Values of a scenario: the words of times, paths into what was seen, and when a value is the expected one."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

RELATIVE = 1e-9
_NOW = re.compile(r"now(?:([+-])(\d+(?:\.\d+)?)(ms|s|m|h|d))?$")
_UNIT_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
#: fields that hold a day, or a time as text
DAY_FIELDS = frozenset(("expiry", "maturity", "dated", "first_coupon"))
COMPARISONS = frozenset(("above", "below", "contains"))


class _Absent:
    """Stands for what is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def moment(text: Any, now_ns: int) -> int | None:
    """Return what ``now``, ``now-5s``, ``now+400d`` means, in ns; None: it is no such word."""
    found = _NOW.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    sign, amount, unit = found.groups()
    ahead = int(Decimal(amount) * _UNIT_NS[unit]) if unit else 0
    return now_ns - ahead if sign == "-" else now_ns + ahead


def with_times(value: Any, now_ns: int, field: str = "") -> Any:
    """Return a JSON value in which the words of times are times: ns, or the day where a field holds one."""
    if isinstance(value, dict):
        return {k: with_times(v, now_ns, k) for k, v in value.items()}
    if isinstance(value, list):
        return [with_times(v, now_ns, field) for v in value]
    at = moment(value, now_ns)
    if at is None:
        return value
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d") if field in DAY_FIELDS else at


def at_path(seen: Any, path: str) -> Any:
    """Return what lies at ``a.b.0.c``; names may have points in them; `ABSENT` where there is nothing."""
    if path == "":
        return seen
    if isinstance(seen, dict):
        parts = path.split(".")
        for k in range(len(parts), 0, -1):
            name = ".".join(parts[:k])
            if name in seen:
                found = at_path(seen[name], ".".join(parts[k:]))
                if found is not ABSENT:
                    return found
        return ABSENT
    if isinstance(seen, list):
        head, _, rest = path.partition(".")
        if head.lstrip("-").isdigit() and -len(seen) <= int(head) < len(seen):
            return at_path(seen[int(head)], rest)
    return ABSENT


def agrees(expected: Any, seen: Any, within: float = RELATIVE) -> bool:
    """Return whether what was seen is what was expected."""
    if expected == "absent":
        return seen is ABSENT or seen == "absent"
    if expected == "any":
        return seen is not ABSENT and seen is not None
    if seen is ABSENT:
        return False
    if expected is None:
        return seen is None
    if isinstance(expected, bool):
        return seen is expected
    if isinstance(expected, int | float):
        return _near(expected, seen, within)
    if isinstance(expected, str):
        return isinstance(seen, str) and seen == expected
    if isinstance(expected, list):
        return isinstance(seen, list) and len(seen) == len(expected) and all(
            agrees(e, s, within) for e, s in zip(expected, seen, strict=True))
    if expected and expected.keys() <= COMPARISONS:
        return all(_compared(word, bound, seen) for word, bound in expected.items())
    return isinstance(seen, dict) and seen.keys() == {k for k, v in expected.items() if v != "absent"} and all(
        agrees(e, seen.get(k, ABSENT), within) for k, e in expected.items())


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(Decimal(value)) if isinstance(value, str) else float(value)
    except (InvalidOperation, OverflowError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _near(expected: float, seen: Any, within: float) -> bool:
    if isinstance(expected, int) and isinstance(seen, int) and not isinstance(seen, bool) and expected == seen:
        return True
    found = _number(seen)
    return found is not None and abs(found - expected) <= within * (abs(expected) or 1.0)


def _compared(word: str, bound: Any, seen: Any) -> bool:
    if word == "contains":
        if isinstance(seen, str):
            return str(bound) in seen
        if isinstance(seen, list) and any(agrees(bound, s) for s in seen):
            return True
        return str(bound) in json.dumps(seen, default=str)
    limit, found = _number(bound), _number(seen)
    if limit is None or found is None:
        return False
    return found > limit if word == "above" else found < limit


def differences(expected: dict[str, Any], seen: Any, within: float = RELATIVE) -> list[str]:
    """Return a line for every path at which what was seen is not what was expected."""
    return [f"{path}: expected {shown(value)}, seen {shown(at_path(seen, path))}"
            for path, value in expected.items() if not agrees(value, at_path(seen, path), within)]


def shown(value: Any) -> str:
    """Return a value as it is printed: short, in one line."""
    text = repr(value) if value is ABSENT else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + "…"

"""Whether a write to limits lets more through than two people agreed on, by what is in force now and later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.limits import LimitKey, key_of
from models.limits_in_force import by_two, end_of
from schemas.records import Limit

#: metrics of which the nearest node is in force in place of wider ones, and those that are compared with each other:
#: a price is beyond a collar where it is beyond the wider of its two measures
_NEAREST = {"collar_bps": "collar", "collar_ticks": "collar", "price_drift": "price_drift"}
_SEVERITY = {"alert": 0, "reduce": 1, "halt": 2}


def alike(limit: Limit) -> tuple[str, ...]:
    """Return what limits share that are compared with each other: the figure, or the guard of prices."""
    group = _NEAREST.get(limit.metric)
    return (group,) if group is not None else tuple(str(part) for part in key_of(limit))


def needs_second(standing: Mapping[str, Limit], limit_id: str, after: Limit | None, now_ns: int) -> str | None:
    """Return why a write needs a second person, or None where one person may do it.

    Parameters
    ----------
    standing : every limit, in the order of their newest versions
    after : the limit as it would be written; None: it is taken away
    """
    before = standing.get(limit_id)
    if after is not None and after.metric == "override":
        return "an order passes its limits by two people only"
    written = {k: x for k, x in standing.items() if k != limit_id} | ({} if after is None else {limit_id: after})
    keys = {key_of(x) for x in (before, after) if x is not None}
    for key in sorted(keys):
        if key.metric in _NEAREST:
            guarded = _price_guard(standing, before, after, now_ns)
        else:
            guarded = _loosened(standing.values(), written.values(), key, now_ns)
        if guarded is not None:
            return (f"two people set {guarded.limit_id} ({guarded.metric} of {guarded.node}, {guarded.limit}), "
                    "and this would let more pass")
    if after is not None and (stricter := _outlived(standing, after, now_ns)) is not None:
        return (f"a limit that ends by itself and lets more pass than {stricter.limit_id} ({stricter.metric} of "
                f"{stricter.node}, {stricter.limit}) stands in for it by two people only")
    return None


def _outlived(standing: Mapping[str, Limit], after: Limit, now_ns: int) -> Limit | None:
    """Return a lasting limit that a temporary one of one person lets more pass than: beside it, it has no effect."""
    end = end_of(after)
    if end is None or end <= now_ns or by_two(after):
        return None
    return next((x for x in standing.values() if x.until is None and key_of(x) == key_of(after)
                 and x.mode == after.mode and not _as_strict(after, x)), None)


def _loosened(before: Iterable[Limit], after: Iterable[Limit], key: LimitKey, now_ns: int) -> Limit | None:
    """Return a limit of two people that would be in force at some time and is not kept by what then is."""
    old, new = ([x for x in found if key_of(x) == key] for found in (before, after))
    pairs = [x for x in old if by_two(x)]
    ends = {end for x in (*old, *new) if (end := end_of(x)) is not None and end > now_ns}
    for at in sorted({now_ns, *ends}):
        in_force = _in_force(new, at)
        for pair in _in_force(pairs, at):
            if not any(_as_strict(x, pair) for x in in_force):
                return pair
    return None


def _in_force(limits: list[Limit], at_ns: int) -> list[Limit]:
    """Return what a write may rest on of the limits on one figure: the newest temporary one, or all lasting ones.

    Whoever wrote that: what stands in for nothing (`models/limits_in_force.py`) is asked about all the same.
    """
    temporary = [x for x in limits if (end := end_of(x)) is not None and end > at_ns]
    return temporary[-1:] or [x for x in limits if x.until is None]


def _as_strict(one: Limit, other: Limit) -> bool:
    """Whether whatever one limit refuses, warns of or stops, the other one does too."""
    return (one.limit <= other.limit and one.warn <= other.warn and (one.mode == "hard" or other.mode == "soft")
            and _SEVERITY[one.action] >= _SEVERITY[other.action])


def _price_guard(standing: Mapping[str, Limit], before: Limit | None, after: Limit | None, now_ns: int,
                 ) -> Limit | None:
    """Return a limit of two people on prices that a write may stand in for.

    One on a nearer node, or the other measure of a collar, takes its place: only a tighter version of what is there
    already is known to let no more pass.
    """
    if before is not None and after is not None and key_of(before) == key_of(after) and _as_strict(after, before) and (
            (before.until, before.window_ms) == (after.until, after.window_ms)):
        return None
    groups = {_NEAREST[x.metric] for x in (before, after) if x is not None and x.metric in _NEAREST}
    return next((x for x in standing.values() if by_two(x) and _NEAREST.get(x.metric) in groups
                 and ((end := end_of(x)) is None or end > now_ns)), None)

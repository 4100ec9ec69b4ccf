"""Which of the limits on one figure are in force: one reading, for who measures, who refuses and who shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from schemas.records import Limit
from schemas.units import parse_ts_ns


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's: case, width of letters and spaces around them make no second person."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def by_two(limit: Limit) -> bool:
    """Whether two people set a limit."""
    return limit.approved_by is not None and _plain(limit.approved_by) not in ("", _plain(limit.by))


def end_of(limit: Limit) -> int | None:
    """Return when a limit ends; None: it lasts."""
    return None if limit.until is None else parse_ts_ns(limit.until, "until")


def in_force(limits: Iterable[tuple[Limit, int | None]], at_ns: int) -> tuple[list[Limit], Limit | None]:
    """Return which limits are held, and the one that stands in for lasting ones, if there is one.

    A temporary limit of two people, the newest, stands in for lasting ones of its mode; any other is held beside them.

    Parameters
    ----------
    limits : on one figure and of one mode, in the order of their newest versions, each with its end (`end_of`)
    """
    found = list(limits)
    temporary = [x for x, end in found if end is not None and end > at_ns]
    stands_in = next((x for x in reversed(temporary) if by_two(x)), None)
    lasting = [x for x, end in found if end is None] if stands_in is None else [stands_in]
    return [*lasting, *(x for x in temporary if not by_two(x))], stands_in

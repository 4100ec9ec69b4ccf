"""Limits from a file: what differs from what stands is written as next versions, all of it or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.control import (
    Refused,
    current,
    known_nodes,
    limit_to_remove,
    new_limit,
    next_version,
    parents_of,
    unlike_parents,
)
from app.files.reading import read_table
from app.files.records import record_of, unknown_columns
from app.files.refusals import FileRefused
from app.rule_topics import current_limits, one_writer
from app.settings import Settings
from schemas.records import Account, Limit

#: what a row says of a limit; `limit_id`, `node`, `metric` and `limit` have to be there
FIELDS = ("limit_id", "node", "metric", "limit", "warn", "mode", "window_ms", "instrument", "action", "reason",
          "approved_by")
NEEDED = FIELDS[:4]
#: a file is looked at this often while it is watched
WATCH_S = 0.5
NOT_IN_FILE = "no longer in the file of limits"
_COMPARED = ("node", "metric", "limit", "warn", "mode", "window_ms", "instrument", "action")


@dataclass(frozen=True)
class Changes:
    """What a file asks for beside what stands."""

    set: list[Limit]
    removed: list[Limit]
    #: limits of the file that stand as they are
    same: int
    #: a line for every limit that is wider than the same limit of a node above it
    wider: list[str] = field(default_factory=list)
    #: a line for every limit of the file on a node that nobody has: who is to have it may come later
    of_nobody: list[str] = field(default_factory=list)


class LimitRows(dict[str, dict[str, Any]]):
    """Rows of a file by limit, and where each of them is."""

    def __init__(self) -> None:
        super().__init__()
        self.where: dict[str, str] = {}


def read_limits(path: Path, reason: str | None) -> LimitRows:
    """Return the rows of a file by limit; ``reason``: of those that give none.

    Raises
    ------
    Refused
        With every problem found, a line each: where, field, value, what was expected.
    """
    found = LimitRows()
    try:
        table = read_table(path)
    except FileRefused as error:
        raise Refused(str(error)) from None
    problems = unknown_columns(table, FIELDS, "a field of a limit") + table.problems
    if not len(table) and not table.problems:
        problems.append(f"{table.name}: expected limits, found none")
    for i, row in enumerate(table.rows()):
        said, wrong = record_of({k: v for k, v in row.items() if k in FIELDS}, Limit)
        wrong = [w for w in wrong if w.partition(":")[0] in NEEDED or w.partition(":")[0] in row]
        name = said.get("limit_id", "")
        if name in found:
            wrong.append(f"limit_id: expected each limit once, {name!r} appears twice")
        problems += [f"{table.where(i, text.partition(':')[0])}: {text}" for text in wrong]
        if not wrong:
            found[name] = {"reason": reason or ""} | said
            found.where[name] = f"{table.where(i)}: "
    if problems:
        raise Refused("\n".join(problems))
    return found


def changes(rows: dict[str, dict[str, Any]], held: dict[str, Limit], by: str, prune: bool, now_ns: int) -> Changes:
    """Return what has to be written so that the limits of a file stand; ``prune``: and no others.

    Raises
    ------
    Refused
        With every problem found, a line each.
    """
    wanted, removed, same = [], [], 0
    problems = []
    standing = dict(held)  # as it is once the rows before are written
    where = rows.where if isinstance(rows, LimitRows) else {}
    for limit_id, row in rows.items():
        try:
            before = held.get(limit_id)
            if before is not None:
                as_it_was = next_version(before, row | {"reason": "as it stands"}, by, now_ns)
                if all(getattr(before, f) == getattr(as_it_was, f) for f in _COMPARED):
                    same += 1
                    continue
            made = new_limit(standing, row, by, now_ns)
            wanted.append(made)
            standing.pop(limit_id, None)
            standing[limit_id] = made
        except Refused as error:
            problems.append(f"{where.get(limit_id, '')}{limit_id}: {error}")
    for limit_id in sorted(held.keys() - rows.keys()) if prune else ():
        if held[limit_id].until is None:  # a temporary one ends by itself
            try:
                fields = {"limit_id": limit_id, "reason": NOT_IN_FILE}
                removed.append(limit_to_remove(standing, fields, by, now_ns))
                del standing[limit_id]
            except Refused as error:
                problems.append(f"{limit_id}: {error}")
    if problems:
        raise Refused("\n".join(problems))
    return Changes(wanted, removed, same)


def check_limits_of(path: Path, by: str) -> list[str]:
    """Return the limits of a file, each of which could be written where nothing stands yet.

    Raises
    ------
    Refused
        With every problem found, a line each.
    """
    rows = read_limits(path, "a check of the file")
    return [x.limit_id for x in changes(rows, {}, by, False, time.time_ns()).set]


async def load_limits(settings: Settings, path: Path, by: str, reason: str | None = None, prune: bool = False,
                      dry_run: bool = False) -> Changes:
    """Write what differs between a file and what stands; return it."""
    rows = read_limits(path, reason)
    async with one_writer(settings, "limits") as put:
        held = await current_limits(settings)
        found = changes(rows, held, by, prune, time.time_ns())
        if not dry_run:
            if found.set:
                await put([(x.limit_id, x) for x in found.set])
            if found.removed:
                await put([(x.limit_id, None) for x in found.removed], by=by, reason=NOT_IN_FILE)
    standing = held | {x.limit_id: x for x in found.set}
    accounts = await current(settings, "reference.accounts", Account)
    wider = unlike_parents([x for k, x in standing.items() if x not in found.removed],
                           parents_of(accounts.values(), settings.levels))
    known = await known_nodes(settings)
    named = [(k, x, f"instrument:{x.instrument}") for k, x in standing.items() if k in rows]
    return replace(found, wider=wider, of_nobody=[
        f"{k}: {why}" for k, x, instrument in named
        if (why := known.nobody(x.node) or (known.nobody(instrument) if x.instrument else None)) is not None])


async def watch_limits(load: Callable[[], Awaitable[bool]], path: Path, stop: asyncio.Event) -> None:
    """Load a file now and whenever it changes; one that is gone for a moment, or is no longer there, changes nothing.

    ``load`` says whether it has seen to the file as it is; else it is asked again.
    """
    seen: tuple[int, int] | None = None
    while not stop.is_set():
        try:
            status = await asyncio.to_thread(path.stat)
        except FileNotFoundError:  # editors put a new file in place of the old one
            status = None
        found = None if status is None else (status.st_mtime_ns, status.st_size)
        if found is not None and found != seen and await load():
            seen = found
        try:
            await asyncio.wait_for(stop.wait(), WATCH_S)
        except TimeoutError:
            continue

"""Files of ticks and trades into the topics, in time order, at a chosen speed; all of them, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.files.market import Asked, MarketFile, read_market
from app.files.refusals import FileRefused
from app.files.symbols import pair_of
from app.publisher import BatchingPublisher
from app.reference_files import publish_reference
from app.settings import Settings
from schemas.codec import encode
from schemas.records import Instrument
from schemas.topics import TOPICS
from schemas.units import TS_END, format_ts_ns
from tables.tail import Tail

STEP_S = 0.02
CHUNK = 20_000
#: decimals of instruments that a replay makes, at least and at most
DECIMALS = {"price_increment": (5, 9), "quantity_increment": (2, 8)}
_COLUMNS = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


@dataclass(frozen=True)
class Pace:
    """How records are sent: times real time (0: at once), with the times of the files, at most so many."""

    speed: float = 1.0
    as_is: bool = False
    limit: int | None = None
    reference: bool = True


def read_files(files: Sequence[Path], asked: Asked, as_is: bool, console: Console,
               latest_ns: int = TS_END - 1) -> tuple[list[MarketFile], list[str]]:
    """Return the files as records, and everything that is wrong with them.

    Times without a zone are of one clock as long as they are moved to now, and no other file names a zone.

    Parameters
    ----------
    latest_ns : the last time that readers of the topics take
    """
    parts: list[MarketFile] = []
    problems: list[str] = []
    with Progress(TextColumn("read"), *_COLUMNS[1:], console=console, transient=True) as progress:
        for number, path in enumerate(progress.track(files), start=1):
            try:
                parts.append(read_market(path, asked, number))
                problems += parts[-1].refused
            except FileRefused as error:
                problems += error.problems
    zones = {part.naive for part in parts}
    for part in parts:
        if part.naive and (as_is or len(zones) > 1):
            problems.append(f"{part.name}: expected times with a zone, or --time-zone, was without one "
                            f"({'they are kept' if as_is else 'other files name theirs'})")
        ahead = part.ts[part.ts > latest_ns]
        if as_is and len(ahead):
            problems.append(f"{part.name}: expected times until {format_ts_ns(latest_ns)} as they are kept, was "
                            f"{format_ts_ns(int(ahead.max()))}, the latest of {len(ahead)} that lie ahead")
    return parts, problems


def stamps(ts: np.ndarray, pace: Pace, started_ns: int) -> np.ndarray:
    """Return the times that records carry: those of the files, or moved to now.

    Moved at a pace, each is the moment at which it is due; moved at once, the newest is of now and the others lie
    before it, a thousand times as close together: none is ahead of the clock that receives it.
    """
    if pace.as_is or not len(ts):
        return ts
    if pace.speed > 0:
        return started_ns + ((ts - ts.min()) / pace.speed).astype(np.int64)
    return started_ns - (ts.max() - ts) // 1_000


def report_of(parts: Sequence[MarketFile], problems: Sequence[str]) -> dict[str, Any]:
    """Return what was read, file by file, and how much was refused."""
    return {"files": [{"file": p.name, "kind": p.kind, "records": len(p.records), "refused": len(p.refused),
                       "times": p.times, "instruments": sorted({r["instrument"] for r in p.records})[:20],
                       **({"left_out": p.left_out} if p.left_out else {}),
                       **({"not_carried": p.not_carried} if p.not_carried else {})} for p in parts],
            "refused": len(problems)}


def _increment(records: Sequence[dict[str, Any]], fields: tuple[str, ...], bounds: tuple[int, int]) -> Decimal:
    found = bounds[0]
    for record in records:
        for name in fields:
            if (value := record.get(name)) is not None:
                _, _, exponent = Decimal(value).as_tuple()
                found = max(found, -exponent if isinstance(exponent, int) else 0)
    return Decimal(1).scaleb(-min(found, bounds[1]))


def instruments_of(parts: Sequence[MarketFile]) -> list[Instrument]:
    """Return an instrument for each name: a pair of known currencies is one, all else a share in dollars."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for record in part.records:
            by_name.setdefault(record["instrument"], []).append(record)
    out = []
    for name, records in by_name.items():
        pair = pair_of(name.removesuffix("-PERP"))
        out.append(Instrument(
            instrument=name, currency=pair[1] if pair else "USD",
            asset_class=("perpetual" if name.endswith("-PERP") else "fx") if pair else "equity",
            price_increment=_increment(records, ("bid", "ask", "last", "price"), DECIMALS["price_increment"]),
            quantity_increment=_increment(records, ("quantity",), DECIMALS["quantity_increment"])))
    return out


async def _known_instruments(settings: Settings) -> set[str]:
    """Return the instruments that are published already: their terms are not ours to change."""
    names: set[str] = set()
    tail = Tail(settings.client(), [settings.topics()["reference.instruments"]],
                lambda batch: names.update((k or b"").decode() for k in batch.keys))
    await tail.start()
    try:
        await tail.read_to_end()
    finally:
        await tail.stop()
    return names


async def run_replay(settings: Settings, parts: Sequence[MarketFile], pace: Pace, console: Console) -> dict[str, Any]:
    """Publish records in time order; return what was sent.

    Raises
    ------
    FileRefused
        There is none.
    """
    ts = np.concatenate([p.ts for p in parts] or [np.zeros(0, np.int64)])
    records = [(p.topic, r) for p in parts for r in p.records]
    order = np.argsort(ts, kind="stable")[: pace.limit if pace.limit is not None else len(ts)]
    if not len(order):
        raise FileRefused("files: expected records, found none")
    client, topics = settings.client(), settings.topics()
    made: list[Instrument] = []
    if pace.reference:
        known = await _known_instruments(settings)
        made = [i for i in instruments_of(parts) if i.instrument not in known]
        await publish_reference(client, topics, made, [])
    counts = {topics[t.name]: settings.partitions if t.partitions == "data" else 1 for t in TOPICS}
    publisher = BatchingPublisher(client, counts)
    await publisher.start()
    first, started = int(ts[order[0]]), time.monotonic()
    when = np.zeros(len(ts), np.int64)
    when[order] = stamps(ts[order], pace, time.time_ns())
    sent = {"ticks": 0, "trades": 0}
    try:
        with Progress(*_COLUMNS, console=console) as progress:
            task = progress.add_task("replay", total=len(order))
            at = 0
            while at < len(order):
                end = at + CHUNK
                if pace.speed > 0:
                    until = first + int((time.monotonic() - started) * pace.speed * 1e9)
                    end = at + int(np.searchsorted(ts[order[at:]], until, side="right"))
                for i in order[at:end].tolist():
                    topic, record = records[i]
                    key = record["account" if topic == "trades" else "instrument"]
                    publisher.send(topics[topic], key.encode(), encode(record | {"ts_event": int(when[i])}))
                    sent[topic] += 1
                progress.update(task, completed=min(end, len(order)))
                at = min(end, len(order))
                await (asyncio.sleep(STEP_S) if pace.speed > 0 else publisher.flush())
    finally:
        await publisher.stop()
    return sent | {"seconds": round(time.monotonic() - started, 2),
                   "instruments_made": {i.instrument: f"{i.asset_class} in {i.currency}" for i in made}}

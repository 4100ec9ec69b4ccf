"""CSV and Parquet files of ticks and trades into the topics, in time order, at a chosen speed."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.publisher import BatchingPublisher
from app.reference_files import publish_reference
from app.settings import Settings
from models.market import pair_currencies
from schemas.codec import encode
from schemas.records import Instrument
from schemas.topics import TOPICS
from tables.tail import Tail

#: names other people's files use for our fields
ALIASES = {"ts": "ts_event", "timestamp": "ts_event", "symbol": "instrument", "size": "quantity"}
STEP_S = 0.02
CHUNK = 20_000


def read_table(path: Path) -> pa.Table:
    """Return a file as a table with our field names.

    Raises
    ------
    ValueError
        If it has no time, or neither quotes nor trades.
    """
    table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
    names = [ALIASES.get(n.lower(), n.lower()) for n in table.column_names]
    table = table.rename_columns(names)
    if "instrument" not in names:
        parts = [part.upper() for part in path.stem.split("_")]
        symbol = next((p for p in parts if _pair_of(p)), path.stem.upper())
        table = table.append_column("instrument", pa.array([symbol] * len(table)))
    if "ts_event" not in table.column_names:
        raise ValueError(f"{path.name}: expected a column ts_event, ts or timestamp, found {', '.join(names)}")
    if not {"bid", "ask"} & set(names) and not {"trade_id", "account"} <= set(names):
        raise ValueError(f"{path.name}: expected bid and ask, or the fields of a trade, found {', '.join(names)}")
    return table


def _pair_of(name: str) -> tuple[str, str] | None:
    """Return the currencies of a name of six letters, separators aside."""
    letters = "".join(c for c in name if c.isalpha())
    return pair_currencies(letters, letters[3:]) if len(letters) == 6 else None


def _nanoseconds(column: Any) -> np.ndarray:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return np.asarray(pc.cast(column, pa.timestamp("ns")).to_numpy()).astype("datetime64[ns]").astype(np.int64)
    if pa.types.is_integer(kind):
        return np.asarray(column.to_numpy()).astype(np.int64)
    return np.asarray(column.to_pylist(), dtype="datetime64[ns]").astype(np.int64)


def _prepare(path: Path, number: int) -> tuple[np.ndarray, list[tuple[str, str, dict[str, Any]]]]:
    table = read_table(path)
    ts = _nanoseconds(table["ts_event"])
    is_trade = "trade_id" in table.column_names and "account" in table.column_names
    keep = [n for n in table.column_names if n in (
        "instrument", "bid", "ask", "last", "bid_size", "ask_size", "source", "trade_id", "account", "side",
        "quantity", "price", "order_id", "trader", "counterparty", "venue")]
    rows = table.select(keep).to_pylist()
    topic, key = ("trades", "account") if is_trade else ("ticks", "instrument")
    out = []
    for row in rows:
        record = {k: repr(v) if isinstance(v, float) else v for k, v in row.items() if v is not None}
        if not is_trade:
            record.setdefault("source", f"{number}-{path.stem}")
        out.append((topic, str(record[key]), record))
    return ts, out


def _instruments(records: list[tuple[str, str, dict[str, Any]]]) -> list[Instrument]:
    out = {}
    for _, _, record in records:
        name = record["instrument"]
        if name not in out:
            pair = _pair_of(name)
            out[name] = Instrument(instrument=name, asset_class="fx" if pair else "equity",
                                   currency=pair[1] if pair else "USD", quantity_increment=Decimal("0.01"),
                                   price_increment=Decimal("0.00001"))
    return list(out.values())


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


async def run_replay(settings: Settings, files: list[Path], speed: float, as_is: bool, limit: int | None,
                     reference: bool, console: Console) -> dict[str, Any]:
    """Publish files in time order; return what was sent."""
    parts = [_prepare(path, i + 1) for i, path in enumerate(files)]
    ts = np.concatenate([p[0] for p in parts])
    records = [r for p in parts for r in p[1]]
    order = np.argsort(ts, kind="stable")[: limit or len(ts)]
    client, topics = settings.client(), settings.topics()
    if reference:
        known = await _known_instruments(settings)
        await publish_reference(client, topics, [i for i in _instruments(records) if i.instrument not in known], [])
    counts = {topics[t.name]: settings.partitions if t.partitions == "data" else 1 for t in TOPICS}
    publisher = BatchingPublisher(client, counts)
    await publisher.start()
    first, started, started_ns = int(ts[order[0]]), time.monotonic(), time.time_ns()
    sent = {"ticks": 0, "trades": 0}
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replay", total=len(order))
        at = 0
        while at < len(order):
            if speed > 0:
                until = first + int((time.monotonic() - started) * speed * 1e9)
                end = at + int(np.searchsorted(ts[order[at:]], until, side="right"))
            else:
                end = at + CHUNK
            for i in order[at:end].tolist():
                topic, key, record = records[i]
                when = int(ts[i]) if as_is else started_ns + int((int(ts[i]) - first) / (speed or 1e3))
                publisher.send(topics[topic], key.encode(), encode(record | {"ts_event": when}))
                sent[topic] += 1
            progress.update(task, completed=min(end, len(order)))
            at = min(end, len(order))
            if speed > 0:
                await asyncio.sleep(STEP_S)
            else:
                await publisher.flush()
    await publisher.stop()
    return sent | {"files": len(files), "seconds": round(time.monotonic() - started, 2)}

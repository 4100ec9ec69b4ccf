"""`deskrisk reconcile`: positions against outside statements and the trade store, now or every 15 minutes."""

from __future__ import annotations

import asyncio
import logging
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiokafka.structs import TopicPartition

from app.offline import Offline
from app.settings import Settings
from app.sink.clickhouse import ServerClickHouse
from models.corporate_actions import CorporateActions
from models.reconciliation import Break, StoredTrade, live_quantities, reconcile
from schemas.codec import encode
from schemas.keys import external_key
from schemas.records import Alert, External
from tables.kafka import owner_partition
from tables.restore import read_range
from tables.whole_file import document_of, make_folder, read_document, write_whole

log = logging.getLogger(__name__)
#: a source that disagrees about everything is wrong itself: so many positions are folded again at most
RELOADS_MAX = 1_000
HISTORY_MAX = 10_000
#: what to do where the history of breaks is not what was written
REMEDY = "move it away: the breaks that there are count as new then, and their ages begin now"
_CHANGED = ("(SELECT account FROM deskrisk.trades FINAL WHERE action IN ('correct', 'bust') "
            "OR instrument IN %(split)s)")
#: accounts without corrections and busts, and without instruments that were split, are added up where they are
STORE_SUMS = f"""SELECT account, instrument, sum(if(lower(side) = 'buy', quantity, -quantity)) FROM (
  SELECT account, instrument, side, quantity FROM deskrisk.trades FINAL WHERE account NOT IN {_CHANGED}
  ORDER BY partition, offset, idx LIMIT 1 BY account, trade_id) GROUP BY account, instrument"""
#: of the others every record counts, in the order of the log
STORE_ROWS = f"""SELECT account, instrument, trade_id, action, ref_trade_id,
  if(lower(side) = 'buy', quantity, -quantity), ts_event_ns FROM deskrisk.trades FINAL WHERE account IN {_CHANGED}
  ORDER BY partition, offset, idx"""


async def run_reconcile(settings: Settings, reload: bool = True) -> dict[str, Any]:
    """Return the report: what was compared, and every break with its age; new and gone breaks go to `alerts`.

    With ``reload`` the owners of the positions with new breaks fold those positions, and no others, again from the log.
    """
    topics = settings.topics()
    read = Offline(settings).follow("reference.instruments", "corporate.actions", "positions", "positions.external")
    positions, statements, instruments = read.positions, read.statements, read.reference.instrument_records
    data = range(settings.partitions)
    await read_range(settings.client(), {
        TopicPartition(topics[t], 0): 0 for t in ("reference.instruments", "corporate.actions")} | {
        TopicPartition(topics[t], p): 0 for t in ("positions", "positions.external") for p in data}, read.router)
    actions = read.reference.actions
    stored = _trade_store(settings, actions)
    snapshots = [actions.restated(s) for s in statements if s.kind == "snapshot"]
    book = Path(settings.data_dir) / "reconciliation.json"
    known, history = remembered(book)
    now = time.time_ns()
    found = reconcile(positions, [*snapshots, *stored], instruments, known, now)
    since = {b.key: b.since_ns for b in found}
    remember(book, known, history, since, now)
    opened = [b for b in found if b.key not in known]
    await _alert(settings, opened, [k for k in known if k not in since], now)
    touched = sorted({(b.account, b.instrument) for b in opened})[:RELOADS_MAX] if reload else []
    await _ask_for_reload(settings, touched, now)
    # a statement that came under another key is on the topic twice: as it came, and under its own key
    stated = {(s.source, s.account, s.instrument, s.kind) for s in statements}
    return {"positions": len(positions), "statements": len(stated), "trade_store_rows": len(stored),
            "refused": read.refused.total(), "breaks": len(found), "reloads": len(touched), "ok": not found,
            "rows": [{"source": b.source, "account": b.account, "instrument": b.instrument, "field": b.field,
                      "internal": b.internal, "external": b.external, "age_s": (now - b.since_ns) / 1e9}
                     for b in found]}


def remembered(book: Path) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return since when each break stands, and the history of breaks.

    Raises
    ------
    Damaged
        The file is not what was written.
    """
    kept = read_document(book, REMEDY) if book.exists() else {"since": {}, "history": []}
    return kept["since"], kept["history"]


def remember(book: Path, known: dict[str, int], history: list[dict[str, Any]], since: dict[str, int], now: int) -> None:
    """Keep which breaks stand now and which are gone; ``known``: those that stood before."""
    make_folder(book.parent)
    history = history[-HISTORY_MAX:]
    history += [{"key": k, "opened_ns": since[k]} for k in since if k not in known]
    history += [{"key": k, "opened_ns": t, "closed_ns": now} for k, t in known.items() if k not in since]
    write_whole(book, document_of({"since": since, "history": history}))


def _trade_store(settings: Settings, actions: CorporateActions) -> list[External]:
    """Return what the analysts' store adds up to; nothing where there is no server to ask."""
    if settings.clickhouse_url is None:
        return []
    store = ServerClickHouse(settings.clickhouse_url.get_secret_value())
    try:
        split = {"split": [name for name in actions.names() if actions.in_force(name, "split")] or [""]}
        sums = {(a, i): Decimal(q) for a, i, q in store.select(STORE_SUMS, split)}
        sums |= live_quantities((StoredTrade(*row) for row in store.select(STORE_ROWS, split)), actions.ratio_since)
        return [External(source="trade-store", account=a, instrument=i, quantity=q, ts_event=time.time_ns(),
                         kind="snapshot") for (a, i), q in sums.items()]
    finally:
        store.close()


async def _alert(settings: Settings, opened: list[Break], closed: list[str], now: int) -> None:
    if not opened and not closed:
        return
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        for b in opened:
            record = Alert(alert_id=f"recon.{b.key}.{now}", kind="reconciliation", node=f"account:{b.account}",
                           metric=f"{b.instrument} {b.field}", value=b.internal, limit=b.external, utilisation=None,
                           cause_ts=now, raised_ts=now, snapshot_id=0, limit_id=f"recon.{b.key}", note=b.source)
            await producer.send_and_wait(settings.topics()["alerts"], encode(record), record.node.encode())
        for key in closed:
            source, account, instrument, field = key.split("|")
            record = Alert(alert_id=f"recon.{key}.{now}", kind="clear", node=f"account:{account}",
                           metric=f"{instrument} {field}", value=None, limit=None, utilisation=None, cause_ts=now,
                           raised_ts=now, snapshot_id=0, limit_id=f"recon.{key}", note=source)
            await producer.send_and_wait(settings.topics()["alerts"], encode(record), record.node.encode())
    finally:
        await producer.stop()


async def _ask_for_reload(settings: Settings, keys: list[tuple[str, str]], now: int) -> None:
    if not keys:
        return
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        for account, instrument in keys:
            record = External(source="reconcile", account=account, instrument=instrument, quantity=Decimal(0),
                              ts_event=now, kind="reload")
            await producer.send_and_wait(settings.topics()["positions.external"], encode(record), external_key(record),
                                         owner_partition(account, settings.partitions))
    finally:
        await producer.stop()


async def reconcile_every(settings: Settings, seconds: float) -> None:
    """Reconcile on and on; a run that fails is logged, and the next one comes."""
    print("READY reconcile", flush=True)
    while True:
        try:
            report = await run_reconcile(settings)
            log.info("reconciled %d positions with %d statements: %d breaks", report["positions"], report["statements"],
                     report["breaks"])
        except (OSError, TimeoutError, RuntimeError, ValueError):
            log.exception("reconciliation failed")
        await asyncio.sleep(seconds)

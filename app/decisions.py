"""Decisions looked up on their log, the newest part of it first: what is asked about is mostly of a moment ago."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from app.settings import Settings
from schemas.codec import decoder_of
from schemas.controls import Check
from schemas.records import Decision
from tables.kafka import owner_partition
from tables.restore import ends_of, offsets_at, read_range

log = logging.getLogger(__name__)
#: looked through one after the other, seconds back from now; then all that is left
SPANS_S = (10, 60, 600, 3_600, 6 * 3_600, 86_400)
_decision = decoder_of(Decision)


async def decisions_of(settings: Settings, order_id: str | None, limit: int = 100, account: str | None = None,
                       ) -> list[Decision]:
    """Return decisions, oldest first: of one order (the first is the verdict), or the newest ones.

    Parameters
    ----------
    limit : so many of the newest ones
    account : that they are of; only its partition is read then
    """
    client, topic, n = settings.client(), settings.topics()["decisions"], settings.partitions
    tps = [TopicPartition(topic, p) for p in (range(n) if account is None else [owner_partition(account, n)])]
    wanted = None if order_id is None else f'"{order_id}"'.encode()
    found: list[Decision] = []
    before = await ends_of(client, tps)

    def on_batch(batch: Any) -> None:
        end = before[TopicPartition(batch.topic, batch.partition)]
        for offset, value in zip(batch.offsets.tolist(), batch.values, strict=True):
            if value is None or offset >= end or (wanted is not None and wanted not in value):
                continue
            try:
                decision = _decision.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                log.error("%s %d@%d is no decision: %s", batch.topic, batch.partition, offset, error)
                continue
            if order_id in (None, decision.order_id) and account in (None, decision.account):
                found.append(decision)
        if order_id is None and len(found) > 4 * limit:  # the newest ones are all that is asked for
            found.sort(key=lambda d: d.ts_decision)
            del found[:-limit]

    now_s = time.time()
    for span in (*SPANS_S, None):
        since = dict.fromkeys(tps, 0) if span is None else await offsets_at(client, tps, int((now_s - span) * 1e3))
        starts = {tp: since.get(tp, end) for tp, end in before.items() if since.get(tp, end) < end}
        await read_range(client, starts, on_batch, before=before)
        before |= starts
        if any(map(_is_verdict, found)) if order_id is not None else len(found) >= limit:
            break
    found.sort(key=lambda d: d.ts_decision)
    return found if order_id is not None else found[-limit:]


def _is_verdict(decision: Decision) -> bool:
    """Whether there is no earlier decision on its order: it is none on a cancel, or on an id that was in use."""
    if decision.outcome == "cancel" or (decision.order is not None and decision.order.action == "cancel"):
        return False
    return not any(r.code == Check.DUPLICATE_ORDER.name and r.measured == decision.order_id for r in decision.reasons)

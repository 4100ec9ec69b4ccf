"""What a gate decides by, as it comes from its topics: marks, limits, surfaces, what risk measured, other gates."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agents.displaced import Displaced
from agents.gate_watch import GateWatch
from agents.market_inputs import MarketInputs
from agents.other_gates import OtherGates
from agents.ports import Clock, Counters
from agents.router import Place, PutAside, Router
from models.gate.book import GateBook
from schemas.addresses import GateExposure, UnitVars
from schemas.codec import decoder_of, encode
from schemas.nodes import MODELS_SUFFIX, Risk
from schemas.reasons import QuarantineReason
from schemas.records import Counterparty, Limit, Mark
from tables.records import RecordBatch

#: a gate that starts takes in every price of the last minute that is on the log: what is older was written down
EVERY_PRICE_MS = 60_000
#: marks taken in before whoever waits gets a turn
MARKS_AT_ONCE = 8
_risk = decoder_of(Risk)


class GateInputs:
    """Routes records into a gate; marks wait until orders leave them a moment.

    Parameters
    ----------
    names : of topics, by how they are called on the broker
    takes_last : whether orders are taken against a mark that is the price of the last trade
    """

    def __init__(self, gate: GateBook, watch: GateWatch, others: OtherGates, names: Mapping[str, str],
                 counters: Counters, put_aside: PutAside, clock: Clock, future_ns: int, takes_last: bool = False,
                 ) -> None:
        self._gate, self._watch, self._clock, self._takes_last = gate, watch, clock, takes_last
        #: the newest record of every node, read where there is a limit on its VaR
        self._risk_of: dict[str, bytes] = {}
        self.var_limited: set[str] = set()
        #: by key, the newest of each
        self.waiting_marks: dict[bytes | None, bytes] = {}
        self._marks_came = asyncio.Event()
        self._names, self._put_aside = names, put_aside
        self._rated: dict[str, Counterparty] = {}
        self.displaced = Displaced({"reference.counterparties": self._standing})
        self.router = router = Router(names, counters, "gate_refused", self._refused, future_ns)
        router.subscribe("marks", Mark, self._take_mark)
        router.subscribe("limits", Limit, *watch.judged(self._take_limit, self._drop_limit))
        router.subscribe("reference.counterparties", Counterparty, self._take_counterparty, self._drop_counterparty)
        MarketInputs(gate.book).subscribe(router)
        router.subscribe("exposure", GateExposure, lambda record, _: others.take(record),
                         lambda place: others.gone(place.key))
        router.subscribe("risk", None, self._take_risk)
        router.subscribe("unit-vars", UnitVars,
                         lambda record, _: gate.set_unit_var(record.instruments, record.var_99, record.ts))

    def _refused(self, batch: RecordBatch, k: int, reason: QuarantineReason, detail: str, raw: bytes) -> None:
        self._put_aside(batch, k, reason, detail, raw)
        key = batch.keys[k] if batch.keys else None
        self.displaced.refused(self._names[batch.topic], (key or b"").decode(errors="replace"), detail)

    def _take_counterparty(self, record: Counterparty, place: Place) -> None:
        self._gate.add_counterparty(record)
        self._rated[record.counterparty] = record
        self.displaced.came(place.topic, place.key, record.counterparty)

    def _drop_counterparty(self, place: Place) -> None:
        self._gate.remove_counterparty(place.key)
        self._rated.pop(place.key, None)
        self.displaced.gone(place.topic, place.key)

    def _standing(self, key: str) -> bytes | None:
        record = self._rated.get(key)
        return None if record is None else encode(record)

    def on_marks(self, batch: RecordBatch) -> None:
        """Keep the newest mark of each instrument: a window is hundreds of records.

        What waits is taken in before a newer one takes its place where every price counts, and is not long past.
        """
        waiting, cares = self.waiting_marks, self._gate.guards.cares
        since_ms = self._clock() // 1_000_000 - EVERY_PRICE_MS
        for key, value, ts_ms in zip(batch.keys, batch.values, batch.timestamps_ms.tolist(), strict=True):
            if value is None:
                continue
            if key in waiting and ts_ms >= since_ms and cares((key or b"").decode(errors="replace")):
                self._hand_on(key, waiting[key])
            waiting[key] = value
        self._marks_came.set()

    def take_marks(self, most: int) -> None:
        """Take so many marks in that wait."""
        for key in list(self.waiting_marks)[:most]:
            self._hand_on(key, self.waiting_marks.pop(key))

    def _hand_on(self, key: bytes | None, value: bytes) -> None:
        self.router.hand_on(value, Place("marks", -1, -1, (key or b"").decode(errors="replace")))

    async def mark_loop(self) -> None:
        """Take marks in between orders, until cancelled."""
        while True:
            await self._marks_came.wait()
            self.take_marks(MARKS_AT_ONCE)
            if not self.waiting_marks:
                self._marks_came.clear()
            await asyncio.sleep(0)

    def _take_mark(self, mark: Mark, _: Place) -> None:
        self._gate.book.add_mark(mark)
        self._gate.set_price(mark.instrument, mark.bid, mark.ask, mark.mid, mark.last, mark.ts_event,
                             mark.quality == "good" or (self._takes_last and mark.quality == "last"))

    def _take_limit(self, limit: Limit, _: Place) -> None:
        self._gate.add_limit(limit)
        if limit.metric == "var_hist":
            self.var_limited.add(limit.node)
            if limit.node in self._risk_of:
                self._gate.take_var(_risk.decode(self._risk_of[limit.node]))
        self._watch.add(limit)

    def _drop_limit(self, place: Place) -> None:
        self._gate.remove_limit(place.key)
        self._watch.monitor.remove(place.key)

    def _take_risk(self, value: bytes, place: Place) -> None:
        """Keep a node's newest record as it came; one that limits nothing decides nothing, and is not decoded."""
        if not place.key.endswith(MODELS_SUFFIX):
            self._risk_of[place.key] = value
        if place.key in self.var_limited:
            self._gate.take_var(_risk.decode(value))

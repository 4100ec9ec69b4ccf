"""Terms of what is held: corrections and splits are followed at once, another contract under the name is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from agents.ports import Counters, Publisher
from agents.reference_tail import ReferenceTail
from schemas.codec import encode
from schemas.records import Account, Instrument
from tables.position_partition import PositionPartition

log = logging.getLogger(__name__)
#: two owners that came to hold two contracts under one name must not answer each other for ever
PUT_BACK_MAX = 10


class HeldTerms:
    """Keeps positions in the terms of the reference data.

    Parameters
    ----------
    parts : the owned partitions, as they come and go
    topic : where instruments are published
    replaced : makes the changed rows of a partition durable, and publishes them
    reload : has one account and instrument of a partition folded again from the log
    """

    def __init__(self, reference: ReferenceTail, parts: Mapping[int, PositionPartition], publisher: Publisher,
                 topic: str, counters: Counters, replaced: Callable[[PositionPartition], None],
                 reload: Callable[[PositionPartition, str, str], None]) -> None:
        self._reload = reload
        #: told an instrument that has changed
        self.on_instrument: Callable[[Instrument], None] = lambda record: None
        self._reference, self._parts = reference.reference, parts
        self._publisher, self._topic, self._counters, self._replaced = publisher, topic, counters, replaced
        self._put_back_count: dict[str, int] = {}
        #: instruments of the batch at hand
        self._heard: list[Instrument] = []
        reference.on_change = self._changed
        reference.on_contract_refused = self._put_back
        self._reference.is_held = self._is_held

    def follow(self, part: PositionPartition) -> None:
        """Restate a partition in corrected terms."""
        for key in part.follow_terms():
            self._counters.add("terms_refused")
            log.error("%s|%s: held in parts of the new quantity_increment: counted in the former terms", *key)
        self.fold_behind(part)

    def fold_behind(self, part: PositionPartition) -> None:
        """Have what the log alone can say folded again from it."""
        while part.behind:
            account, instrument = part.behind.pop()
            log.error("%s|%s: a corporate action is of before what has left the window: folded again from the log",
                      account, instrument)
            self._reload(part, account, instrument)

    def follow_all(self) -> None:
        """Restate all owned partitions, and have what changed written and published."""
        for part in self._parts.values():
            self.follow(part)
            if part.changed():
                self._replaced(part)

    def _changed(self, record: Account | Instrument) -> None:
        if isinstance(record, Instrument):
            self._heard.append(record)

    def read(self) -> None:
        """Restate what is held by the instruments that were heard of since the last call."""
        heard, self._heard = self._heard, []
        # what nobody holds is followed with the next trades: a new instrument costs no look at every position
        if any(self._is_held(record.instrument) for record in heard):
            self.follow_all()
        for record in heard:
            self.on_instrument(record)

    def _is_held(self, instrument: str) -> bool:
        """Whether an owned position has ever had anything of an instrument: its money is stated in its currency."""
        index = self._reference.instruments.index.get(instrument)
        if index is None:
            return False
        return any(bool((rows["instrument_index"] == index).any()) for rows in (
            part.positions.arrays.rows[: len(part.positions)] for part in self._parts.values()))

    def _put_back(self, standing: Instrument) -> None:
        """Publish the record that goes on to hold: after compaction the refused one would be all that is left."""
        self._counters.add("contracts_refused")
        log.error("%s: a record makes another contract of what is held: refused, the standing one is put back",
                  standing.instrument)
        count = self._put_back_count[standing.instrument] = self._put_back_count.get(standing.instrument, 0) + 1
        if count > PUT_BACK_MAX:
            return
        self._publisher.send(self._topic, standing.instrument.encode(), encode(standing))

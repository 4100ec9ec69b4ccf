"""Reference data that come while positions run: what costs a look at every position is done once a batch."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from agents.held_terms import HeldTerms
from agents.reference_tail import ReferenceTail
from schemas.topics import TOPICS
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tests.folding import feed, new_partition, trade

TS = 1_700_000_000_000_000_000


class Counted(PositionPartition):
    """A partition that counts how often it is asked to follow."""

    looks = 0

    def follow_terms(self) -> list[tuple[str, str]]:
        self.looks += 1
        return super().follow_terms()


def test_a_batch_of_instruments_is_followed_once() -> None:
    plain = new_partition()
    part = Counted(0, plain.reference, 1 << 18, 2_000_000_000)
    feed(part, [trade("T1", "buy", "3", "1.1", TS)])
    names = {t.name: t.name for t in TOPICS}
    tail = ReferenceTail(cast(Any, None), names, part.reference, cast(Any, SimpleNamespace(add=lambda *_, **__: None, set=lambda *_, **__: None)))
    replaced: list[PositionPartition] = []
    terms = HeldTerms(tail, {0: part}, cast(Any, None), "reference.instruments", cast(Any, None), replaced.append, lambda *_: None)
    tail.on_read = terms.read
    told: list[str] = []
    terms.on_instrument = lambda record: told.append(record.instrument)

    def published(records: list[dict[str, str]]) -> None:
        n, part.looks = len(records), 0
        tail._take(RecordBatch("reference.instruments", 0, np.arange(n), [json.dumps(r).encode() for r in records],
                               [r["instrument"].encode() for r in records], {}, np.zeros(n, np.int64), n))

    records = [{"instrument": f"X{k}", "asset_class": "equity", "currency": "USD", "quantity_increment": "1"} for k in range(500)]
    published(records)
    assert part.looks == 0 and len(told) == len(records), "nobody holds them"
    terms.on_instrument = lambda record: None
    finer = {"instrument": "EURUSD", "asset_class": "fx", "currency": "USD", "quantity_increment": "0.01"}
    published([r | {"sector": "tech"} for r in records] + [finer])
    assert part.looks == 1
    assert replaced == [part], "what was held is restated in the finer increment"
    assert part.positions.arrays.rows["quantity_decimals"][0] == 2

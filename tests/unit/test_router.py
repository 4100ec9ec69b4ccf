"""The border for records: one that raises, at whatever depth, is refused alone and its neighbours are applied."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from agents.router import Place, Router
from schemas.codec import encode
from schemas.reasons import QuarantineReason
from schemas.records import Control, Mark
from tables.records import RecordBatch


class Counts:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[f"{name} {labels['topic']}"] += int(amount)

    def set(self, name: str, value: float, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...


def batch_of(topic: str, values: list[bytes | None]) -> RecordBatch:
    n = len(values)
    return RecordBatch(topic, 3, np.arange(10, 10 + n), values, [f"k{i}".encode() for i in range(n)], {}, np.zeros(n, np.int64), 10 + n)


def control(scope: str) -> bytes:
    return encode(Control(scope=scope, state="halted", reason="r", by="b", ts=1_800_000_000_000_000_000, rev=1))


@pytest.mark.parametrize("raised", [OverflowError("too large"), KeyError("x"), TypeError("t"), ZeroDivisionError(), RecursionError(), AssertionError()])
def test_what_a_handler_raises_ends_one_record(raised: Exception) -> None:
    counters, seen, aside = Counts(), [], []

    def take(record: Control, place: Place) -> None:
        if record.scope == "bad":
            raise raised
        seen.append((record.scope, place))

    router = Router({"p.controls": "controls"}, counters, "refused", lambda *x: aside.append(x[1:]))
    router.subscribe("controls", Control, take)
    router(batch_of("p.controls", [control("a"), control("bad"), b"{", b'{"scope": 1}', None, control("b")]))
    assert seen == [("a", Place("controls", 3, 10, "k0")), ("b", Place("controls", 3, 15, "k5"))]
    assert [(k, reason) for k, reason, _, _ in aside] == [
        (1, QuarantineReason.NOT_APPLIED), (2, QuarantineReason.NOT_JSON), (3, QuarantineReason.BAD_FIELD)]
    assert aside[0][2].startswith(type(raised).__name__)
    assert counters.counts == {"refused controls": 3}


def test_withdrawals_go_to_their_own_handler_and_bytes_stay_bytes() -> None:
    gone, raw = [], []
    router = Router({"marks": "marks", "risk": "risk"}, Counts(), "refused")
    router.subscribe("marks", Mark, lambda *_: pytest.fail("no value"), lambda place: gone.append(place.key))
    router.subscribe("risk", None, lambda value, place: raw.append((value, place.key)))
    router(batch_of("marks", [None]))
    router(batch_of("risk", [b"\xff", None]))
    assert gone == ["k0"] and raw == [(b"\xff", "k0")]


def test_what_lies_outside_the_record_is_not_taken_for_its_fault() -> None:
    def take(*_: object) -> None:
        raise ConnectionError("broker")

    router = Router({"controls": "controls"}, Counts(), "refused")
    router.subscribe("controls", Control, take)
    with pytest.raises(ConnectionError):
        router(batch_of("controls", [control("a")]))

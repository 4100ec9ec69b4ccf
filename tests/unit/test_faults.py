"""Faults between client and broker: which requests they hurt, what an answer that refuses looks like, what a tape says."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, TxnOffsetCommitRequest

from app.faults.plan import Action, Drawn, Fault, Schedule, from_tape
from app.faults.wire import _SPOKEN, Api, Head, codes_of, refusal, transactional_id

CLIENT = "aiokafka-producer-7"


def head_of(request: object, version: int, correlation: int = 9) -> Head:
    """Return a request as it comes over the wire."""
    form = next(f for f in request._CLASSES if version == f.API_VERSION)  # type: ignore[attr-defined]
    built = request.build(form)  # type: ignore[attr-defined]
    return Head.of(built.build_request_header(correlation, CLIENT).encode() + built.encode())


def end(of: str = "group-positions-3") -> Head:
    return head_of(EndTxnRequest(of, 5, 2, True), 0)


def fetch() -> Head:
    return head_of(FetchRequest(500, 1, 1000, 1, [("trades", [(0, 7, 100), (3, 9, 100)])]), 4)


def produce() -> Head:
    return head_of(ProduceRequest("group-positions-3", -1, 1000, [("changelog", [(3, b"rows")])]), 7)


def test_a_head_says_who_asks_what() -> None:
    head = end()
    assert (head.api, head.version, head.correlation, head.client, head.name) == (26, 0, 9, CLIENT, "END_TXN")
    assert transactional_id(head) == transactional_id(produce()) == "group-positions-3"
    assert transactional_id(fetch()) == "" and transactional_id(replace(produce(), version=2)) == ""


@pytest.mark.parametrize(("head", "codes"), [
    (end(), [48]), (produce(), [48]), (fetch(), [48, 48]),
    (head_of(AddPartitionsToTxnRequest("x", 5, 2, [("changelog", [3, 4])]), 0), [48, 48]),
    (head_of(TxnOffsetCommitRequest("x", "g", 5, 2, [("trades", [(3, 10, "")])]), 0), [48])], ids=lambda x: getattr(x, "name", ""))
def test_an_answer_that_refuses_is_read_as_one(head: Head, codes: list[int]) -> None:
    answer = refusal(head, 48)
    assert struct.unpack_from(">i", answer) == (9,)
    assert codes_of(head, answer) == codes


def test_every_request_that_may_be_refused_has_such_an_answer() -> None:
    """Of every form that aiokafka can speak of them: one that is new in the library is answered, too."""
    for (api, version), form in _SPOKEN.items():
        empty = form(**{name: [] if type(kind).__name__ == "Array" else b"" if "Bytes" in str(kind) else
                        "x" if type(kind).__name__ == "String" else 1 for name, kind in zip(form.SCHEMA.names, form.SCHEMA.fields, strict=True)})
        head = Head.of(empty.build_request_header(1, CLIENT).encode() + empty.encode())
        assert (head.api, head.version) == (api, version)
        assert set(codes_of(head, refusal(head, 15))) <= {0, 15}


def test_a_request_of_a_form_that_is_not_known_is_not_refused_by_guess() -> None:
    with pytest.raises(ValueError, match="END_TXN version 5: no answer"):
        refusal(replace(end(), version=5), 48)


def test_each_fault_counts_its_own_requests() -> None:
    schedule = Schedule([Fault(Api.END_TXN, Action.CUT, nth=2, having="positions-3"), Fault(Api.END_TXN, Action.ERROR, nth=3, times=2, error_code=51)])
    others = [schedule.of(end("group-positions-1")), schedule.of(fetch()), schedule.of(end())]
    assert others == [None, None, None]
    cut = schedule.of(end())
    assert cut is not None and (cut.action, cut.nth) == (Action.CUT, 2)
    error = schedule.of(end())
    assert error is not None and (error.action, error.nth, error.times) == (Action.ERROR, 4, 1)
    assert schedule.of(end()) is None


@pytest.mark.parametrize("wrong", [
    {"action": Action.CUT, "nth": 0}, {"action": Action.ERROR}, {"action": Action.CUT, "error_code": 3}, {"action": Action.DELAY},
    {"action": Action.CUT, "seconds": 1.0}, {"action": Action.CUT, "until": Api.PRODUCE}])
def test_a_fault_that_would_do_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Fault(Api.END_TXN, **wrong)  # type: ignore[arg-type]


def test_what_was_drawn_comes_again_from_the_tape() -> None:
    menu = [Fault(Api.END_TXN, Action.CUT), Fault(Api.END_TXN, Action.HOLD, until=Api.PRODUCE), Fault(Api.FETCH, Action.DELAY, seconds=0.1),
            Fault(Api.END_TXN, Action.LOSE_ANSWER, having="positions-1")]
    requests = [end() if k % 3 else end("group-positions-1") if k % 2 else fetch() for k in range(400)]
    drawn = Drawn(5, 0.2, menu)
    first = [drawn.of(head) for head in requests]
    assert {f.action for f in first if f} == {Action.CUT, Action.HOLD, Action.DELAY, Action.LOSE_ANSWER}
    assert [f.action if f else None for f in map(Drawn(5, 0.2, menu).of, requests)] == [f.action if f else None for f in first]
    tape = "".join(json.dumps({"what": "hurt", "fault": f.record()}) + "\n" for f in first if f)
    again = from_tape(tape)
    assert [again.of(head) for head in requests] == first

"""R7, R14, R19 of positions: repeats change nothing, times shift nothing but times, a fill is the sum of its parts."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from models import trade_columns as tc
from schemas.records import Position
from tests.folding import close, feed, new_partition
from tests.property.test_history_with_statements import between, mixed, records
from tests.property.test_position_relations import Event, apply
from tests.property.test_rewritten_history import FOREVER, histories

DAY_NS = 86_400_000_000_000
History = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@settings(max_examples=40)
@given(histories(), between(), st.lists(st.integers(0, 30), min_size=4, max_size=4), st.data())
def test_a_repeat_anywhere_changes_nothing(history: History, others: list[Event], places: list[int],
                                           data: st.DataObject) -> None:
    log = mixed(history[0], others, places[: len(others)])
    plain, repeated = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    apply(plain, log)
    taken: list[Event] = []
    for event in log:
        if set(apply(repeated, [event])) <= {tc.APPLIED}:
            taken.append(event)
        before = repeated.state_hash()
        again = [event] if event[0] != "trade" else [e for e in taken if e[0] == "trade"]
        if again and data.draw(st.booleans()):
            apply(repeated, [data.draw(st.sampled_from(again))])
            assert repeated.state_hash() == before
    assert repeated.state_hash() == plain.state_hash()


def shifted(event: Event) -> Event:
    if event[0] == "trade":
        return "trade", event[1] | {"ts_event": event[1]["ts_event"] + DAY_NS}
    return *event[:-1], event[-1] + DAY_NS


def back(row: Position) -> Position:
    return msgspec.structs.replace(row, last_ts_event=row.last_ts_event - DAY_NS if row.last_ts_event else 0,
                                   opening_ts=row.opening_ts - DAY_NS if row.opening_ts else 0)


@settings(max_examples=30)
@given(histories(), between(), st.lists(st.integers(0, 30), min_size=4, max_size=4), st.integers(0, 3))
def test_a_day_later_everything_is_a_day_later_and_nothing_else(history: History, others: list[Event],
                                                                places: list[int], lateness_s: int) -> None:
    log = mixed(history[0], others, places[: len(others)])
    today, tomorrow = (new_partition(lateness_ns=lateness_s * 10**9) for _ in range(2))
    apply(today, log)
    apply(tomorrow, [shifted(e) for e in log])
    assert {k: back(r) for k, r in records(tomorrow).items()} == records(today)


@settings(max_examples=30)
@given(histories())
def test_a_fill_is_the_sum_of_its_parts(history: History) -> None:
    whole, parts = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    fills = [t | {"quantity": str(2 * int(t["quantity"]))} for t in history[1] if t["quantity"] != "0"]
    fills = [{k: v for k, v in t.items() if k not in ("fees", "action")} for t in fills]
    feed(whole, fills)
    feed(parts, [t | {"trade_id": f"{t['trade_id']}{half}", "quantity": str(int(t["quantity"]) // 2)}
                 for t in fills for half in "ab"])
    a, b = records(whole), records(parts)
    assert a.keys() == b.keys()
    for key in a:
        assert (a[key].quantity, 2 * a[key].trades) == (b[key].quantity, b[key].trades)
        close(a[key].realised_pnl or 0.0, b[key].realised_pnl or 0.0, 1e6)
        close(a[key].average_price or 0.0, b[key].average_price or 0.0, 1e4)

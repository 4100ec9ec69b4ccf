"""Relations over logs of all records mixed: trades, corrections, busts, funding, statements, rolls, changed terms."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import trade_columns as tc
from tables.position_partition import PositionPartition
from tests.folding import ACCOUNTS, INSTRUMENTS, feed, new_partition
from tests.property.test_rewritten_history import FOREVER, histories

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
#: ("trade", record) | ("state", source, account, instrument, units, price, ts) | ("roll", account, ts) | ("terms", name)
Event = tuple[Any, ...]
REFUSED = {tc.REF_UNKNOWN, tc.ID_REUSED, tc.BAD_QUANTITY, tc.BAD_PRICE, tc.NOT_REPRESENTABLE, tc.OVERFLOW}


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Return a log of everything, and what is refused among it."""
    out: list[Event] = []
    for record in draw(histories())[0]:
        out.append(("trade", record))
        what = draw(st.sampled_from("......srtxyz"))
        account, name = draw(st.sampled_from(ACCOUNTS)), draw(st.sampled_from(list(INSTRUMENTS)))
        ts = T0 + draw(st.integers(0, 40)) * S
        if what == "s":
            out.append(("state", draw(st.sampled_from(["PB1", "PB2"])), account, name, draw(st.integers(-50, 50)),
                        draw(st.one_of(st.none(), st.floats(1.0, 200.0))), ts))
        elif what == "r":
            out.append(("roll", account, ts))
        elif what == "t":
            out.append(("terms", name))
        elif what == "x":
            out.append(("trade", record | {"trade_id": f"N{len(out)}", "action": "bust", "ref_trade_id": "nobody"}))
        elif what == "y":
            out.append(("trade", record | {"price": "1.5", "venue": "elsewhere", "ref_trade_id": None,
                                           "action": "new", "quantity": "3"}))
        elif what == "z":
            out.append(("trade", record | {"trade_id": f"N{len(out)}", "quantity": "-1", "action": "new"}))
    return out


def apply(part: PositionPartition, log: list[Event], batch: int = 100) -> list[int]:
    """Apply events; trades between two others go in batches."""
    statuses: list[int] = []
    waiting: list[dict[str, Any]] = []
    for event in [*log, ("end",)]:
        if event[0] == "trade":
            waiting.append(event[1])
            continue
        statuses += feed(part, waiting, batch)
        waiting = []
        if event[0] == "state":
            _, source, account, name, units, price, ts = event
            part.open(part.reference.intern_key(account, name), source, units, price, ts, 0)
        elif event[0] == "roll":
            part.roll(event[1], event[2])
        elif event[0] == "terms":
            standing = part.reference.instrument_records[event[1]]
            part.reference.add_instrument(msgspec.structs.replace(standing, multiplier=standing.multiplier + 1,
                                                                  quantity_increment=Decimal("0.001")))
            assert not part.follow_terms()
    part.positions.arrays.rows["offset"][: len(part.positions)] = 0  # where it was read is no part of what it came to
    return statuses


@settings(max_examples=40)
@given(logs(), st.lists(st.integers(0, 60), max_size=4), st.sampled_from([1, 7]))
def test_a_restart_anywhere_and_any_slicing_change_nothing(log: list[Event], cuts: list[int], batch: int) -> None:
    straight = new_partition(lateness_ns=FOREVER)
    apply(straight, log)
    part, changelog, at = new_partition(lateness_ns=FOREVER), {}, 0
    for cut in [*sorted(min(c, len(log)) for c in cuts), len(log)]:
        apply(part, log[at:cut], batch)
        at = cut
        for key, value in part.cut():
            if value is None:
                changelog.pop(key, None)
            else:
                changelog[key] = value
        restored = PositionPartition(0, part.reference, 262_144, FOREVER)
        restored.restore(dict(changelog))
        assert restored.state_hash() == part.state_hash()
        part = restored
    assert part.state_hash() == straight.state_hash()


@settings(max_examples=30)
@given(logs())
def test_a_refused_record_changes_nothing(log: list[Event]) -> None:
    part = new_partition(lateness_ns=FOREVER)
    for event in log:
        before = part.state_hash()
        if set(apply(part, [event])) & (REFUSED | {tc.DUPLICATE, tc.POISON}):
            assert part.state_hash() == before, event


@settings(max_examples=30)
@given(logs())
def test_accounts_do_not_touch_each_other_and_names_of_trades_mean_nothing(log: list[Event]) -> None:
    def renamed(event: Event) -> Event:
        if event[0] != "trade":
            return event
        ids = {k: f"{event[1][k]}-renamed" for k in ("trade_id", "ref_trade_id") if event[1].get(k)}
        return "trade", event[1] | ids

    def of(event: Event, account: str) -> bool:
        return event[0] == "terms" or account in (event[1]["account"] if event[0] == "trade" else event[1:3])

    whole, apart = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    apply(whole, log)
    for account in reversed(ACCOUNTS):
        apply(apart, [renamed(e) for e in log if of(e, account) and e[0] != "terms"])
    if any(e[0] == "terms" for e in log):
        return  # terms belong to all accounts: they do not commute with what is refused in between
    a, b = ({(r.account, r.instrument): msgspec.structs.replace(r, revision=0) for r in part.records(
        np.arange(len(part.positions)))} for part in (whole, apart))
    assert a == b


@settings(max_examples=30)
@given(histories(), st.integers(2, 5))
def test_more_of_everything_makes_more_money_and_the_other_side_makes_the_opposite(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], k: int) -> None:
    sent, _ = history
    plain = [{key: v for key, v in t.items() if key != "fees"} for t in sent if t["quantity"] != "0"]
    other = {"buy": "sell", "sell": "buy"}
    parts = [new_partition(lateness_ns=FOREVER) for _ in range(3)]
    feed(parts[0], plain)
    feed(parts[1], [t | {"quantity": str(int(t["quantity"]) * k)} for t in plain])
    feed(parts[2], [t | {"side": other[t["side"]]} for t in plain])
    if not len(parts[0].positions):
        return
    one, more, mirror = (part.records(np.arange(len(part.positions))) for part in parts)
    for a, b, c in zip(one, more, mirror, strict=True):
        assert Decimal(b.quantity) == k * Decimal(a.quantity) == -k * Decimal(c.quantity)
        assert b.realised_pnl == pytest.approx(k * a.realised_pnl, rel=1e-9, abs=1e-6)
        assert c.realised_pnl == pytest.approx(-a.realised_pnl, rel=1e-9, abs=1e-6)
        assert b.average_price == pytest.approx(a.average_price) == c.average_price

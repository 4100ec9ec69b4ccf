"""What a dividend pays is a function of what is known, whatever came when, was sliced how and was restarted between."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.corporate import CorporateAction
from tables.position_partition import PositionPartition
from tables.refold import fold, put_in_place
from tests.folding import ACCOUNTS, close, feed, new_partition, trade
from tests.property.test_corporate_actions import NOW, S, action, assert_as_the_book, book_of, first
from tests.property.test_history_with_statements import assert_openings, between, mixed, records
from tests.property.test_position_relations import Event, apply
from tests.property.test_rewritten_history import FOREVER, T0, histories

NAME = "ACME"
RATIOS, AMOUNTS = ["2", "3", "0.5", "1.5", "0.1"], ["0.35", "0.1", "2"]
#: a version of an action, or (instrument, action) that is withdrawn
Said = CorporateAction | tuple[str, str]


@st.composite
def sayings(draw: st.DrawFn) -> list[list[Said]]:
    """Return what is said of each of some actions, one after the other; of one moment there is one split at most."""
    out: list[list[Said]] = []
    times = draw(st.lists(st.integers(0, 41), min_size=12, max_size=12, unique=True))
    for i in range(draw(st.integers(2, 4))):
        split = draw(st.booleans()) if i > 1 else i == 0
        said: list[Said] = []
        for k in range(draw(st.integers(1, 3))):
            ts = times[3 * i + k] if draw(st.booleans()) else times[3 * i]
            if not split and draw(st.integers(0, 3)) == 0:
                ts = times[0]  # the moment of a split
            said.append(action(f"CA{i}", NAME, T0 + ts * S, draw(st.sampled_from(RATIOS)) if split else None,
                               None if split else draw(st.sampled_from(AMOUNTS))))
        if draw(st.integers(0, 4)) == 0:
            said.append((NAME, f"CA{i}"))
        out.append(said)
    return out


def in_one(trades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a history of one instrument: all that happens meets."""
    return [t | {"instrument": NAME, "account": ACCOUNTS[0]} for t in trades]


def standing(sayings: list[list[Said]]) -> list[CorporateAction]:
    return [said[-1] for said in sayings if isinstance(said[-1], CorporateAction)]


def say(part: PositionPartition, said: Said) -> None:
    if isinstance(said, CorporateAction):
        part.reference.add_action(said)
    else:
        part.reference.withdraw_action(*said)


def told(draw: st.DrawFn, trades: list[Any], sayings: list[list[Said]]) -> list[Any]:
    """Return one log: what is said of each action keeps its order, wherever it comes among the trades."""
    log = list(trades)
    for said in sayings:
        places = sorted(draw(st.lists(st.integers(0, len(log)), min_size=len(said), max_size=len(said))))
        for place, record in reversed(list(zip(places, said, strict=True))):
            log.insert(place, record)
    return log


def restarted(part: PositionPartition, changelog: dict[bytes, bytes]) -> PositionPartition:
    for key, value in part.cut():
        if value is None:
            changelog.pop(key, None)
        else:
            changelog[key] = value
    again = PositionPartition(0, part.reference, part.positions.fills_max, part.positions.lateness_ns)
    again.restore(dict(changelog))
    assert again.follow_terms() == [] and again.behind <= part.behind and again.state_hash() == part.state_hash()
    return again


@settings(max_examples=60)
@given(histories(), sayings(), st.data(), st.sampled_from([1, 3, 100]))
def test_dividends_come_to_what_the_book_pays_that_knows_everything_from_the_start(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], said: list[list[Said]], data: st.DataObject,
        batch: int) -> None:
    sent = in_one(history[0]) + [trade(f"FREE{k}", "buy", "7", "0", T0 + data.draw(st.integers(0, 40)) * S, instrument=NAME,
                                       action="receipt") for k in range(data.draw(st.integers(0, 2)))]
    log = told(data.draw, sent, said)
    part, changelog, waiting = new_partition(lateness_ns=FOREVER), dict[bytes, bytes](), list[dict[str, Any]]()
    part.reference.turn(NOW if data.draw(st.booleans()) else T0 + 20 * S)
    for at, event in enumerate([*log, None]):
        if isinstance(event, dict):
            waiting.append(event)
            continue
        feed(part, waiting, batch, at)
        waiting = []
        if event is not None:
            say(part, event)
            part.follow_terms()
        if data.draw(st.integers(0, 3)) == 0:
            part = restarted(part, changelog)
    part.reference.turn(NOW)
    assert part.follow_terms() == [] and not part.behind
    assert_as_the_book(part, book_of(sent, standing(said)))
    restarted(part, changelog)


@settings(max_examples=60)
@given(histories(), between(), sayings(), st.data())
def test_statements_and_rolls_between_change_nothing_of_that(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], others: list[Event], said: list[list[Said]],
        data: st.DataObject) -> None:
    alone = [e if e[0] == "roll" else (e[0], "PB1", ACCOUNTS[0], NAME, *e[4:]) for e in others]
    places = data.draw(st.lists(st.integers(0, 30), min_size=len(alone), max_size=len(alone)))
    early, later = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    for part, log in ((early, [*standing(said), *alone, *mixed(in_one(history[1]), [], [])]),
                      (later, told(data.draw, mixed(in_one(history[0]), alone, places), said))):
        part.reference.turn(NOW)
        for event in log:
            if isinstance(event, CorporateAction) or (len(event) == 2 and event[0] == NAME):
                say(part, event)
                assert part.follow_terms() == []
            else:
                apply(part, [in_units_of(part, event)])
        assert not part.behind
    a, b = records(later), records(early)
    for key in a.keys() & b.keys():
        assert (a[key].quantity, a[key].realised_pnl is None) == (b[key].quantity, b[key].realised_pnl is None)
        assert a[key].funding.keys() == b[key].funding.keys()
        for currency in a[key].funding:
            close(a[key].funding[currency], b[key].funding[currency], 1e5)
    assert_openings(a, b)


def in_units_of(part: PositionPartition, event: Event) -> Event:
    """Return an event, a statement in the decimals that its position is counted in."""
    if event[0] != "state":
        return event
    return (*event[:4], event[4] * 10 ** part.reference.decimals_of(NAME), *event[5:])


def put_right(part: PositionPartition, log: list[dict[str, Any]]) -> None:
    """Fold again from the log what the log alone can say, as the stage does."""
    while part.behind:
        key = part.reference.intern_key(*part.behind.pop())
        shadow = PositionPartition(0, part.reference, 262_144, FOREVER)
        fold(shadow, [(k, NOW // 10**6, json.dumps(t).encode()) for k, t in enumerate(log)])
        put_in_place(part, part.find_slot(*key), shadow, shadow.find_slot(*key))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["buy", "sell"]), st.integers(1, 60), st.integers(0, 40)), min_size=4, max_size=30),
       sayings(), st.data(), st.sampled_from([1, 4, 9]))
def test_what_has_left_the_window_is_paid_as_the_log_has_it(
        fills: list[tuple[str, int, int]], said: list[list[Said]], data: st.DataObject, batch: int) -> None:
    sent = [trade(f"T{i}", side, str(quantity), "10", T0 + at * S, instrument=NAME) for i, (side, quantity, at) in enumerate(fills)]
    log = told(data.draw, sent, said)
    part, changelog, waiting, fed = new_partition(8, FOREVER), dict[bytes, bytes](), list[dict[str, Any]](), list[Any]()
    part.reference.turn(NOW)
    for event in [*log, None]:
        if isinstance(event, dict):
            waiting.append(event)
            continue
        for start in range(0, len(waiting), batch):
            fed += waiting[start : start + batch]
            feed(part, waiting[start : start + batch], None, len(fed))
            put_right(part, fed)
        waiting = []
        if event is not None:
            say(part, event)
        part.follow_terms()
        put_right(part, fed)
        if data.draw(st.integers(0, 3)) == 0:
            part = restarted(part, changelog)
            part.follow_terms()
            put_right(part, fed)
    book, (row,) = book_of(sent, standing(said)), records(part).values()
    want = book.position(ACCOUNTS[0], NAME)
    assert Decimal(row.quantity) == want.quantity
    close(row.funding.get("USD", 0.0), float(want.funding.get("USD", 0)), 1e4)
    part.reference.version += 1
    assert part.follow_terms() == [] and not part.behind, "what is known is not asked again"


@pytest.mark.parametrize(("ratios", "held"), [(["2"], 200), (["2", "3"], 300)])
def test_a_split_that_comes_or_is_put_right_after_a_dividend_restates_what_it_was_paid_on(ratios: list[str], held: int) -> None:
    part = new_partition()
    part.reference.turn(NOW)
    feed(part, [trade("T1", "buy", "100", "15", T0, instrument=NAME)])
    for record in [action("D1", NAME, T0 + 20 * S, amount="0.1"), *(action("S1", NAME, T0 + 10 * S, r) for r in ratios)]:
        say(part, record)
        part.follow_terms()
    assert (first(part).quantity, first(part).funding) == (str(held), {"USD": -held / 10})
    say(part, (NAME, "S1"))
    part.follow_terms()
    assert (first(part).quantity, first(part).funding) == ("100", {"USD": -10.0})


def test_a_dividend_of_the_moment_of_a_split_is_paid_on_what_is_held_after_it() -> None:
    done = [action("D1", NAME, T0 + 10 * S, amount="0.1"), action("S1", NAME, T0 + 10 * S, "2")]
    part, sent = new_partition(), [trade("T1", "buy", "100", "15", T0, instrument=NAME)]
    part.reference.turn(NOW)
    feed(part, sent)
    for record in done:
        say(part, record)
        part.follow_terms()
    book = book_of(sent, done)
    assert first(part).funding == {"USD": -20.0} and book.position("A1", NAME).funding == {"USD": -20}


def test_a_split_that_is_said_again_counts_its_decimals_once() -> None:
    part = new_partition()
    part.reference.turn(NOW)
    for ratio in ("1.000001", "1.000002", "2"):  # 2 + 6 decimals each, of 15 at most
        part.reference.add_action(action("S1", NAME, T0, ratio))
    part.reference.add_action(action("S2", NAME, T0 + 1, "1.000001"))
    part.reference.add_action(action("S3", NAME, NOW + S, "1.01"))
    with pytest.raises(ValueError, match="ratio: expected one"):
        part.reference.add_action(action("S4", NAME, T0 + 2, "1.000001"))


def test_what_an_earlier_version_remembered_is_counted_again() -> None:
    part = new_partition()
    part.reference.turn(NOW)
    feed(part, [trade("T1", "buy", "100", "15", T0, instrument=NAME)])
    say(part, action("D1", NAME, T0 + 20 * S, amount="0.1"))
    part.follow_terms()
    kept = {k: v for k, v in part.whole() if v is not None}
    say(part, action("S1", NAME, T0 + 10 * S, "2"))
    (key,) = [k for k in kept if k[:1] == b"P"]
    head, tail = kept[key].split(b"[{", 1)
    old = json.loads(b"[{" + tail)[:8]
    kept[key] = head + json.dumps(old).encode()
    again = PositionPartition(0, part.reference, 262_144, FOREVER)
    again.restore(kept)
    again.follow_terms()
    assert first(again).funding == {"USD": -20.0} and not again.behind

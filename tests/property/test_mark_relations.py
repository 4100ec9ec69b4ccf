"""Relations of the mark stage: slices and strangers change no mark, and no order passes by a price that is less known."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gate_inputs import GateInputs
from models import marks as mk
from models import rollup as ru
from models.gate.book import GateBook
from models.quote_columns import decode_quotes
from models.reference import Reference
from models.valued_book import ValuedBook
from schemas.codec import FLAGGED_TICK_DTYPE, TICK_WITHDRAWN, decoder_of, pack_ticks
from schemas.records import Account, AsOf, Fee, Fifo, Instrument, Mark, Position
from tests.property.test_gate_relations import ORDER, PRICES, T0, firm, order_of

S = 1_000_000_000
NAMES = ("A", "B", "C")
SIDE = st.sampled_from(["absent", None, 9.9, 10.0, 10.1, 10.2, 14.0, 0.0])
TICK = st.fixed_dictionaries({"instrument": st.sampled_from(NAMES), "bid": SIDE, "ask": SIDE, "last": st.sampled_from(["absent", "absent", 10.05, 30.0]),
                              "at": st.sampled_from([-3, -1, 0, 1, 1, 2])})


def instruments() -> Reference:
    out = Reference(lambda account: 0)
    for name in NAMES:
        out.add_instrument(Instrument(instrument=name, asset_class="equity", currency="USD"))
    return out


def in_time(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ticks with times; some are older than the one before."""
    at, out = T0, list[dict[str, Any]]()
    for t in ticks:
        at += t["at"] * S
        out.append({k: v for k, v in t.items() if v != "absent" and k != "at"} | {"ts_event": at})
    return out


def packed(tick: dict[str, Any]) -> bytes:
    row = np.zeros(1, FLAGGED_TICK_DTYPE)
    row["instrument"], row["ts_event"] = tick["instrument"].encode(), tick["ts_event"]
    for name in ("bid", "ask", "last"):
        row[name] = np.nan if tick.get(name) is None else tick[name]
    row["flags"] = TICK_WITHDRAWN if all(tick.get(side, 0) is None for side in ("bid", "ask")) else 0
    return pack_ticks(row)


def folded(slices: list[list[bytes]]) -> np.ndarray:
    arrays, marks = instruments().arrays(), mk.empty_marks(len(NAMES))
    terms = np.array([(30 * S, 0.0, False)] * len(NAMES), mk.TERMS_DTYPE)
    for values in slices:
        rows = decode_quotes(values, arrays.instruments, arrays.instrument_known).rows
        mk.apply_quotes(marks, rows, terms, T0, 2 * S)
    return marks


@settings(max_examples=60, deadline=None)
@given(st.lists(TICK, max_size=24), st.lists(st.integers(1, 7), max_size=24), st.lists(st.sampled_from(["json", "packed", "array"]), min_size=1, max_size=5))
def test_any_slicing_in_any_form_gives_one_state(ticks: list[dict[str, Any]], sizes: list[int], forms: list[str]) -> None:
    """R2: one by one or all at once, as JSON, in arrays or packed."""
    stated = in_time(ticks)
    whole = folded([[json.dumps(t).encode() for t in stated]])
    write = {"json": lambda t: json.dumps(t).encode(), "array": lambda t: json.dumps([t]).encode(), "packed": packed}
    values, slices = [write[forms[k % len(forms)]](t) for k, t in enumerate(stated)], list[list[bytes]]()
    while values:
        size = sizes.pop() if sizes else 1
        slices.append(values[:size])
        values = values[size:]
    assert mk.state_hash(folded(slices)) == mk.state_hash(whole)


@settings(max_examples=60, deadline=None)
@given(st.lists(TICK, max_size=24), st.randoms(use_true_random=False))
def test_ticks_of_other_instruments_commute(ticks: list[dict[str, Any]], random: Any) -> None:
    """R9: what is told of one instrument says nothing of another, however the two lie on the log."""
    stated = in_time(ticks)
    queues = {name: [t for t in stated if t["instrument"] == name] for name in NAMES}
    mixed = list[dict[str, Any]]()
    while any(queues.values()):
        mixed.append(queues[random.choice([n for n, q in queues.items() if q])].pop(0))
    assert mk.state_hash(folded([[packed(t) for t in mixed]])) == mk.state_hash(folded([[packed(t) for t in stated]]))


QUALITIES = ("stale", "crossed", "wild", "none", "stub", "one_sided", "last")


def told(gate: GateBook, quality: str, takes_last: bool) -> None:
    """Tell a gate of a worse mark of X, as its stage does."""
    price = PRICES["X"]
    sides = {"one_sided": (price, None, price), "last": (None, None, price), "none": (None, None, None)}.get(quality, (price - 0.1, price + 0.1, price))
    mark = Mark(instrument="X", window_end=T0, ts_event=T0, bid=sides[0], ask=sides[1], mid=sides[2], last=None, quality=quality)  # type: ignore[arg-type]
    GateInputs._take_mark(SimpleNamespace(_gate=gate, _takes_last=takes_last), mark, None)  # type: ignore[arg-type]
    gate.refresh(T0)


@settings(max_examples=25, deadline=None)
@given(ORDER.filter(lambda o: o["action"] == "new"), st.sampled_from(QUALITIES), st.booleans())
def test_a_mark_that_is_less_good_lets_nothing_more_through(asked: dict[str, Any], quality: str, takes_last: bool) -> None:
    """R10, and only a print passes where the setting says so."""
    knows, less = firm(), firm()
    told(less, quality, takes_last)
    order = order_of(1, asked)
    verdict = less.check(order, T0)
    if verdict.outcome == "accept":
        assert knows.check(order, T0).outcome == "accept"
    if asked["instrument"] == "X" and not (quality == "last" and takes_last):
        assert {r.code for r in verdict.reasons} & {"STALE_PRICE", "NO_REFERENCE_PRICE"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["EURUSD", "1000SATSUSD", "USDJPY", "EURJPY", "FUT", "SAP", "FAR"]), st.floats(0.5, 2.0)), max_size=12),
       st.sampled_from(["EUR", "JPY", "1000SATS"]), st.randoms(use_true_random=False))
def test_another_base_currency_scales_every_figure(moved: list[tuple[str, float]], base: str, random: Any) -> None:
    """R15: the same marks and positions, stated in another currency, in another order: each node times one rate."""
    prices = {"EURUSD": 1.25, "1000SATSUSD": 0.5, "USDJPY": 150.0, "EURJPY": 187.5, "FUT": 50.0, "SAP": 100.0, "FAR": 7.0}
    for name, factor in moved:
        prices[name] *= factor
    prices["EURJPY"] = prices["EURUSD"] * prices["USDJPY"]  # rates that agree
    records = [*(Instrument(instrument=n, asset_class="fx", currency=n[-3:]) for n in ("EURUSD", "1000SATSUSD", "USDJPY", "EURJPY")),
               Instrument(instrument="FUT", asset_class="future", currency="JPY"), Instrument(instrument="SAP", asset_class="equity", currency="EUR"),
               Instrument(instrument="FAR", asset_class="equity", currency="1000SATS")]

    def stated(currency: str, mixed: bool) -> tuple[ValuedBook, float]:
        book = ValuedBook(currency, ("book", "desk", "strategy", "fund", "firm"))
        told = [*records, *(Mark(instrument=n, window_end=1, ts_event=1, bid=p, ask=p, mid=p, last=None, quality="good") for n, p in prices.items())]
        for record in random.sample(told, len(told)) if mixed else told:
            (book.add_instrument if isinstance(record, Instrument) else book.add_mark)(record)  # type: ignore[arg-type]
        for k, (name, home) in enumerate((("FUT", "JPY"), ("SAP", "EUR"), ("FAR", "1000SATS"))):
            book.add_account(Account(account=f"A{k}", book="B", desk=f"D{k % 2}", strategy="S", fund="F", base_currency="USD"))
            book.add_position(Position(account=f"A{k}", instrument=name, quantity="3", average_price=5.0, realised_pnl=1.5, fees={"EUR": 2.0, home: 1.0}, currency=home, trades=1,
                                       last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1), funding={"1000SATS": 0.5}))
        book.revalue()
        return book, float(book.market.rate[book.market.currency("USD")])

    (usual, _), (other, rate) = stated("USD", False), stated(base, True)
    for name, k in usual.rollup.node_index.items():
        n = other.rollup.node_index[name]
        np.testing.assert_allclose(other.rollup.nodes[n, : ru.MONEY], usual.rollup.nodes[k, : ru.MONEY] * rate, rtol=1e-9, atol=1e-9 * rate, err_msg=name)
        np.testing.assert_array_equal(other.rollup.nodes[n, ru.MONEY :], usual.rollup.nodes[k, ru.MONEY :])
        if name.partition(":")[0] in ("book", "desk", "fund"):  # of accounts in dollars, whatever the firm's currency
            np.testing.assert_allclose(other.figures(n), usual.figures(k), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("code", ["usd", "U", "ABCDEFGHIJKLM", "U$D", "", "USD\n", " USD"])
def test_what_is_no_code_of_a_currency_is_refused_wherever_one_stands(code: str) -> None:
    def read(cls: Any, **fields: Any) -> Any:
        return decoder_of(cls).decode(json.dumps(fields))

    at = {"instrument": "X", "asset_class": "equity", "currency": "USD"}
    owner = {"account": "A", "book": "B", "desk": "D", "strategy": "S", "fund": "F"}
    for good in ("USD", "USDT", "1INCH", "XX", "ABCDEFGHIJ12"):
        read(Instrument, **at | {"currency": good, "settlement": good})
        read(Account, **owner, base_currency=good)
        read(Fee, amount="1", currency=good)
    for cls, fields in ((Instrument, at | {"currency": code}), (Instrument, at | {"settlement": code}),
                        (Account, owner | {"base_currency": code}), (Fee, {"amount": "1", "currency": code})):
        with pytest.raises(msgspec.ValidationError):
            read(cls, **fields)

"""Lines of the ladder that are added up where something changed are those that adding up everything gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.state import GatewayState
from models import ladder
from models import rollup as ru
from models.gate.book import GateBook
from schemas.codec import encode
from schemas.records import Position
from tests.property.test_rollup import INSTRUMENTS, LEVELS, account, mark, position

NAMES = [i.instrument for i in INSTRUMENTS]
EVENTS = st.lists(st.one_of(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(NAMES), st.integers(-500, 500), st.integers(0, 2)), min_size=1, max_size=6),
    st.tuples(st.just("mark"), st.sampled_from(NAMES), st.one_of(st.none(), st.floats(0.5, 5e4))),
    st.tuples(st.just("remove"), st.integers(0, 5), st.sampled_from(NAMES)), st.just("turn")), max_size=25)


def naive_lines(state: GatewayState) -> dict[tuple[tuple[str, ...], str], list[float]]:
    """Add every live position up, one by one, from its record."""
    out: dict[tuple[tuple[str, ...], str], list[float]] = {}
    rollup = state.book.rollup
    costs: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for row, held in enumerate(state.book.positions):
        line = out.setdefault((path_of(state, row), held.instrument), [0.0] * ladder.COLUMNS)
        if not rollup.rows["live"][row]:
            continue
        c = rollup.contribution[row]
        line[ladder.ROWS] += 1.0
        line[ladder.PRICE] = rollup.own[row, 0]
        costs.setdefault((path_of(state, row), held.instrument), []).append(row)
        line[ladder.QUANTITY] += float(held.quantity)
        line[ladder.NET] += c[ru.NET]
        line[ladder.UNREALISED] += 0.0 if c[ru.UNPRICED] else rollup.own[row, 2]
        line[ladder.UNPRICED] += c[ru.UNPRICED]
        line[ladder.REALISED] += held.realised_pnl
        line[ladder.STALE] += c[ru.STALE]
        line[ladder.FEES] += float("nan") if c[ru.COSTS_UNKNOWN] else c[ru.FEES]
        line[ladder.LATEST] = max(line[ladder.LATEST], held.ts_source)
        for k in range(5):
            line[ladder.DELTA + k] += c[ru.DELTA + k]
        line[ladder.NO_GREEKS] += c[ru.NO_GREEKS]
    for key, line in out.items():
        line[ladder.PRICE] = line[ladder.PRICE] if line[ladder.ROWS] else float("nan")
        line[ladder.AVERAGE] = average(state, costs.get(key, []))
    return out


def path_of(state: GatewayState, row: int) -> tuple[str, ...]:
    """Return the names of the levels above a row, as the sums of the nodes have them."""
    rollup = state.book.rollup
    return tuple(rollup.node_names[k] for k in rollup.ancestors[row, : len(LEVELS)].tolist() if k >= 0)


def average(state: GatewayState, rows: list[int]) -> float:
    """Return the average price of several positions in one instrument; NaN: none, or not known."""
    held = [state.book.rollup.rows[r] for r in rows if state.book.rollup.rows[r]["quantity"] != 0.0]
    total = sum(float(h["quantity"]) for h in held)
    if total == 0.0:
        return float("nan")
    if held[0]["inverse"]:
        units = sum(float(h["quantity"]) / float(h["average_price"]) for h in held)
        return total / units if units else float("inf")
    return sum(float(h["quantity"]) * float(h["average_price"]) for h in held) / total


def records(event: list[Any], rev: int) -> list[Position]:
    """Return a slice of positions; an account's book may change with any record."""
    return [position(f"A{a}", name, float(q), 50.0, q / 3, rev, book=f"B{book}", desk=f"D{book}", ts_source=rev)
            for a, name, q, book in event]


@given(EVENTS)
def test_lines_where_something_changed_are_all_lines(events: list[Any]) -> None:
    state, gate = GatewayState("USD", LEVELS), GateBook("USD", LEVELS)
    for record in INSTRUMENTS:
        state.book.add_instrument(record)
        gate.add_instrument(record)
    for k in range(6):
        state.book.add_account(account(f"A{k}", k))
        gate.add_account(account(f"A{k}", k))
    seen: dict[int, str] = {}
    for rev, event in enumerate([*events, "turn"], start=1):
        if isinstance(event, list):
            values = [encode(r) for r in records(event, rev)]
            assert state.add_positions(values, 0) == gate.add_positions(values, 0).refused == []
        elif event[0] == "mark":
            state.book.add_mark(mark(event[1], event[2]))
        elif event[0] == "remove":
            state.book.remove(f"A{event[1]}|{event[2]}")
        if event != "turn":
            continue
        before = state.seq
        state.turn()
        want = naive_lines(state)
        empty = [0.0] * ladder.AVERAGE + [float("nan"), float("nan"), 0.0]
        assert set(want) <= set(state.lines.groups.index)
        for key, line in state.lines.groups.index.items():
            got = state.lines.sums.values[line]
            np.testing.assert_allclose(got, want.get(key, empty), rtol=1e-12, atol=1e-9, err_msg=str(key))
            assert (seen.get(line) != str(got.tolist())) == (state.lines.changed[line] > before), "sent where it changed, and only there"
            seen[line] = str(got.tolist())
    for row, name in enumerate(gate.book.names):
        k = gate.state.position(*(index[part] for index, part in zip(
            (gate.state.account_index, gate.state.instrument_index), name.split("|"), strict=True)))
        assert k["quantity"] == float(gate.book.positions[row].quantity)


def test_rows_under_a_node() -> None:
    state = GatewayState("USD", LEVELS)
    state.add_positions([encode(r) for r in records([(0, "SAP", 1, 0), (1, "SAP", 2, 1), (2, "FUT", 3, 1)], 1)], 0)
    state.turn()
    under = {scope: [state.book.names[r] for r in state.rows_under(scope)]
             for scope in ("firm", "book:B1", "desk:D0", "account:A2", "currency:EUR", "book:none")}
    assert under == {"firm": ["A0|SAP", "A1|SAP", "A2|FUT"], "book:B1": ["A1|SAP", "A2|FUT"], "desk:D0": ["A0|SAP"],
                     "account:A2": ["A2|FUT"], "currency:EUR": ["A0|SAP", "A1|SAP"], "book:none": []}

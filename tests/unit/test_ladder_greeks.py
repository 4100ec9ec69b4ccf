"""Greeks of single positions and ladder lines: what the page and the API show adds up to the node's."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from scipy.stats import norm

from app.gateway.state import LADDER_COLUMNS, GatewayState
from models import rollup as ru
from schemas.codec import encode
from schemas.market import Surface, VolSlice
from schemas.nodes import Exposure, Pnl, Quality, Risk
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

NOW = 1_800_000_000_000_000_000


def position(account: str, instrument: str, quantity: str) -> Position:
    return Position(account=account, instrument=instrument, quantity=quantity, average_price=1.0, realised_pnl=0.0, fees={},
                    currency="USD", trades=1, last_ts_event=1, fifo=Fifo(0.0, 1.0, 1), break_even_price=1.0, book="B", desk="D",
                    strategy="S", fund="F", as_of=AsOf(0, 1))


@pytest.fixture
def state() -> GatewayState:
    out = GatewayState("USD", ("book", "desk", "strategy", "fund", "firm"))
    book = out.book
    book.add_instrument(Instrument(instrument="X", asset_class="equity", currency="USD"))
    for name, underlying in (("O", "X"), ("NOVOL", "Y")):
        book.add_instrument(Instrument(instrument=name, asset_class="option", currency="USD", underlying=underlying, right="call",
                                       strike=Decimal(100), expiry="2028-01-15", style="european", multiplier=Decimal(10)))
    for k in range(2):
        book.add_account(Account(account=f"A{k}", book="B", desk="D", strategy="S", fund="F"))
    book.add_surface(Surface(underlying="USD", ts_event=1, rates=[(1.0, 0.03)]))
    book.add_surface(Surface(underlying="X", ts_event=1, dividends=[], vols=[VolSlice(expiry="2028-01-15", strikes=[100.0], vols=[0.2])]))
    for name, mid in (("X", 100.0), ("O", 8.0), ("NOVOL", 5.0)):
        book.add_mark(Mark(instrument=name, window_end=NOW, ts_event=NOW, bid=mid, ask=mid, mid=mid, last=None, quality="good"))
    for account, instrument, quantity in (("A0", "O", "5"), ("A1", "O", "-2"), ("A0", "X", "7"), ("A0", "NOVOL", "1")):
        out.add_position(position(account, instrument, quantity), 0)
    out.last_mark_ns = NOW
    out.turn()
    return out


def test_lines_carry_cash_greeks_that_add_up(state: GatewayState) -> None:
    rows = {r["inst"]: r for r in (dict(zip(LADDER_COLUMNS, row, strict=True)) for row in state.ladder("firm", -1)[0])}
    assert rows["O"]["delta"] == pytest.approx(3 * 10 * 100 * norm.cdf((0.03 + 0.02) / 0.2), rel=0.01) and rows["O"]["gamma"] > 0 > rows["O"]["theta"]
    assert (rows["X"]["delta"], rows["X"]["gamma"], rows["X"]["vega"]) == (700.0, None, None)
    assert [rows["NOVOL"][g] for g in ru.GREEKS] == [None] * 5, "without a volatility there is none, and no zero"
    firm = state.book.figures(state.book.rollup.node_index["firm"])
    assert firm[ru.VEGA] == pytest.approx(rows["O"]["vega"]) and firm[ru.DELTA] == pytest.approx(rows["O"]["delta"] + 700)


def test_positions_carry_value_and_greeks(state: GatewayState) -> None:
    valued = {(v["account"], v["instrument"]): v for v in map(state.valued, range(4))}
    long, short = valued["A0", "O"], valued["A1", "O"]
    assert long["greeks"]["vega"] == pytest.approx(-2.5 * short["greeks"]["vega"])
    assert long["market_value"] == pytest.approx(5 * 10 * 8) and long["quality"] == "good" and long["snapshot_id"] > 0
    assert valued["A0", "NOVOL"]["greeks"]["delta"] is None and valued["A0", "NOVOL"]["market_value"] == 50


def test_accounts_are_read_when_somebody_asks(state: GatewayState) -> None:
    """There are thousands and all move with every window; whoever looks at one sees its newest figures at once."""
    def record(node: str, net: float, ts: int) -> bytes:
        return encode(Risk(node=node, snapshot_id=1, ts=ts, as_of=[], quality=Quality(0, 0, []), base_currency="USD",
                           pnl=Pnl(realised=0.0, unrealised=0.0, day=0.0, price=0.0, fx=0.0, fees=0.0, total=0.0),
                           exposure=Exposure(gross=1.0, net=net, long=1.0, short=0.0, positions=1)))

    for net, ts in ((1.0, 1), (2.0, 2)):
        for node in ("account:A0", "account:A1", "desk:D"):
            state.take_risk(node, record(node, net, ts))
    state.turn()
    assert set(state.nodes) == {"desk:D"}
    asked = state.risk("account:A0")
    assert asked is not None and asked.exposure.net == 2.0
    assert [row[0] for row in state.node_rows(-1, "account:A1")] == ["desk:D", "account:A1"]
    since = state.seq
    state.take_risk("account:A1", record("account:A1", 3.0, 3))
    state.turn()
    (row,) = state.node_rows(since, "account:A1")
    assert row[0] == "account:A1" and 3.0 in row
    assert state.risk("account:nobody") is None and "account:nobody" not in state._asked, "names cost nothing"
    state.take_risk("account:A9", b"{")
    assert state.risk("account:A9") is None


def test_lines_that_trades_touched_are_known_apart_from_those_that_only_prices_moved(state: GatewayState) -> None:
    def insts(traded: bool) -> set[str]:
        return {str(dict(zip(LADDER_COLUMNS, row, strict=True))["inst"]) for row in state.ladder("firm", since, traded)[0]}

    since = state.seq
    state.book.add_mark(Mark(instrument="X", window_end=NOW + 1, ts_event=NOW, bid=101.0, ask=101.0, mid=101.0, last=None, quality="good"))
    state.turn()
    assert insts(False) >= {"X", "O"} and insts(True) == set()
    state.add_position(msgspec.structs.replace(position("A0", "X", "9"), as_of=AsOf(0, 2), ts_source=7), 0)
    state.turn()
    assert insts(True) == {"X"} and insts(False) >= {"X", "O"}
    since = state.seq
    assert insts(True) == set()

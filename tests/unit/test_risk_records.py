"""Records of nodes say what they do not know, in a form that everyone who reads them can read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from agents.risk import RiskStage
from models.reference import Reference
from schemas.codec import decoder_of, encode
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position, Risk

LEVELS = ("book", "desk", "strategy", "fund", "firm")


def stage() -> RiskStage:
    topics = {t: t for t in ("market.surfaces", "limits", "controls", "touches", "progress", "alerts", "marks", "risk", "positions")}
    anything = cast(Any, SimpleNamespace())
    reference = cast(Any, SimpleNamespace(reference=Reference(lambda account: 0)))
    return RiskStage(anything, topics, reference, anything, lambda: 10, anything, "USD", LEVELS, 8)


def test_a_fund_whose_currency_has_no_rate_yet_is_a_record_without_figures() -> None:
    made = stage()
    made.book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", base_currency="EUR"))
    made.book.add_instrument(Instrument(instrument="X", asset_class="equity", currency="USD"))
    made.book.add_mark(Mark(instrument="X", window_end=1, ts_event=1, bid=9.0, ask=11.0, mid=10.0, last=10.0, quality="good"))
    made.book.add_position(Position(account="A", instrument="X", quantity="5", average_price=9.0, realised_pnl=0.0, fees={}, currency="USD",
                                    trades=1, last_ts_event=1, fifo=Fifo(0.0, 9.0, 1), break_even_price=9.0, as_of=AsOf(0, 1)))
    made.book.revalue(10)
    for node, known in (("fund:F", False), ("firm", True)):
        sent = encode(made.records([made.book.rollup.node_index[node]], [AsOf(0, 1)], 10)[0])
        seen = decoder_of(Risk).decode(sent)
        assert seen.greeks and (seen.greeks["delta"] == 50.0) == known and (seen.greeks["delta"] is None) == (not known)
        assert (seen.pnl.unrealised, seen.pnl.total, seen.exposure.net) == ((5.0, 5.0, 50.0) if known else (None, None, None))
        assert seen.exposure.positions == 1

"""Records of nodes say what they do not know, in a form that everyone who reads them can read."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from agents.risk import RiskStage
from models.reference import Reference
from models.risk.factor_history import History
from schemas.addresses import UnitVars
from schemas.codec import decoder_of, encode
from schemas.nodes import Risk
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, Mark, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")


def stage(history: History | None = None, publisher: Any = None) -> RiskStage:
    topics = {t: t for t in ("market.surfaces", "limits", "controls", "touches", "progress", "alerts", "marks", "risk", "positions", "unit-vars", "quarantine")}
    anything = cast(Any, SimpleNamespace(set=lambda *_, **__: None))
    reference = cast(Any, SimpleNamespace(reference=Reference(lambda account: 0)))
    return RiskStage(anything, topics, reference, publisher or anything, lambda: 10, anything, "USD", LEVELS, 8, history)


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
        assert seen.exposure.positions == 1 and seen.quality.unpriced == seen.quality.pnl_unknown == 0
        assert seen.quality.without_rate == (None if known else "EUR")
    made.models.run(10)
    for node, good in (("fund:F", False), ("firm", True)):
        models = made.models.run(11).models[node]
        for model in ("greeks", "liquidity", "leverage"):
            assert (models[model].get("why") == "no exchange rate of EUR") == (not good), (node, model)
            assert models[model]["quality"] == "missing" if not good else "no exchange rate" not in str(models[model])


def test_what_models_say_of_a_node_without_a_rate_is_not_called_good() -> None:
    made = stage(History(("X",), np.random.default_rng(1).normal(0.0, 0.01, (300, 1))))
    made.book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", base_currency="EUR"))
    made.book.add_instrument(Instrument(instrument="X", asset_class="equity", currency="USD"))
    made.book.add_mark(Mark(instrument="X", window_end=1, ts_event=1, bid=9.0, ask=11.0, mid=10.0, last=10.0, quality="good"))
    made.book.add_position(Position(account="A", instrument="X", quantity="5", average_price=9.0, realised_pnl=0.0, fees={}, currency="USD",
                                    trades=1, last_ts_event=1, fifo=Fifo(0.0, 9.0, 1), break_even_price=9.0, as_of=AsOf(0, 1)))
    made.book.revalue(10)
    found = made.models.run(10).models
    for name, model in found["desk:D"].items():
        money = [x for x in decoder_of(dict[str, object]).decode(encode(model)).values() if x is None]
        assert name == "concentration" or not money or model.get("quality", "missing") != "good", name
    for quick in (made.models.quick(made.book.rollup.node_index["desk:D"]), {"var_hist": found["desk:D"]["var_hist"]}):
        assert quick is not None and (quick["var_hist"]["quality"], quick["var_hist"]["why"]) == ("missing", "no exchange rate of EUR")
    assert found["firm"]["var_hist"]["quality"] == "good"


def test_a_node_with_a_limit_on_var_is_said_again_after_a_run_though_no_price_has_moved() -> None:
    """Its position came before its price: the record of then says that it is left out, and no order would pass for ever."""
    sent: list[tuple[str, bytes, bytes]] = []
    publisher = SimpleNamespace(send=lambda topic, key, value, *_: sent.append((topic, key, value)))
    made = stage(History(("X",), np.random.default_rng(1).normal(0.0, 0.01, (300, 1))), publisher)
    made.book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    for name in ("X", "unknown"):
        made.book.add_instrument(Instrument(instrument=name, asset_class="equity", currency="USD"))
    made.limits.monitor.add(Limit(limit_id="V", node="desk:D", metric="var_hist", limit=Decimal(100), version=1, by="r", reason="a test of it"))
    made.book.add_mark(Mark(instrument="unknown", window_end=1, ts_event=1, bid=9.0, ask=11.0, mid=10.0, last=10.0, quality="good"))
    made.book.revalue(10)
    made.models.run(10)
    made.book.add_position(Position(account="A", instrument="X", quantity="5", average_price=9.0, realised_pnl=0.0, fees={}, currency="USD",
                                    trades=1, last_ts_event=1, fifo=Fifo(0.0, 9.0, 1), break_even_price=9.0, as_of=AsOf(0, 1)))
    made.models.update_rows(made.book.value_pending())
    node = made.book.rollup.node_index["desk:D"]
    assert (made.models.quick(node) or {})["var_hist"]["quality"] == "partial"
    made.book.add_mark(Mark(instrument="X", window_end=1, ts_event=1, bid=9.0, ask=11.0, mid=10.0, last=10.0, quality="good"))
    made.book.revalue(10)
    made.book.rollup.take_touched()
    made.publish_models()
    assert made.book.rollup.take_touched().tolist() == [node]
    var = (made.models.quick(node) or {})["var_hist"]
    assert var["quality"] == "good" and var["var_99"] > 0.0
    made.publish_unit_vars()
    (said,) = [decoder_of(UnitVars).decode(value) for topic, _, value in sent if topic == "unit-vars"]
    assert said.instruments == ["X"], "of the other one there is no history"
    assert said.var_99[0] >= var["var_99"] / 5

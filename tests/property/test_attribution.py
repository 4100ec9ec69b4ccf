"""What explains a day's P&L, peaks and the prior day, and who contributes: also across days and restarts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.risk.live import RiskModels
from models.valued_book import INSTRUMENT_GROUPINGS
from schemas.market import Surface, VolSlice
from tests.property.test_risk_models import NOW, history, make_book, position
from tests.property.test_rollup import mark


def test_the_parts_of_explained_pnl_sum_and_each_does_its_work() -> None:
    book = make_book()
    for k, (name, q) in enumerate((("SAP", 100.0), ("OPT", 20.0), ("INV", 3.0)), 1):
        book.add_position(position("A0", name, q, k))
    models = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    book.revalue(NOW)
    models.run(NOW)
    book.add_mark(mark("SAP", 100.8))
    book.add_mark(mark("INV", 60_100.0))
    book.add_surface(Surface(underlying="SAP", ts_event=NOW, dividends=[(1.0, 0.01)], vols=[VolSlice(expiry="2027-06-18", strikes=[90.0, 110.0], vols=[0.325, 0.285])]))
    book.revalue(NOW + 3_600_000_000_000)
    run = models.run(NOW + 3_600_000_000_000)
    parts = run.models["firm"]["pnl_explain"]
    assert sum(v for k, v in parts.items() if k != "total") == pytest.approx(parts["total"], rel=1e-9)
    assert parts["vega"] > 0 and parts["theta"] < 0 and parts["gamma"] > 0
    assert abs(parts["unexplained"]) < 0.01 * abs(parts["total"]) and abs(parts["new_trades"]) < 1e-6 * abs(parts["total"])
    book.add_position(position("A1", "SAP", 50.0, 9))  # bought at 100, worth 100.8: its gain is a new trade's
    book.revalue(NOW + 3_600_000_000_001)
    parts = models.run(NOW + 3_600_000_000_001).models["firm"]["pnl_explain"]
    assert parts["new_trades"] == pytest.approx(50 * 0.8 * 1.1, rel=1e-6)
    traded = parts["new_trades"]
    book.add_position(msgspec.structs.replace(book.positions[book.keys["A1|SAP"]], revision=99, funding={"USD": 12.5}))
    book.revalue(NOW + 3_600_000_000_002)
    parts = models.run(NOW + 3_600_000_000_002).models["firm"]["pnl_explain"]
    assert parts["carry"] == pytest.approx(-12.5) and parts["new_trades"] == pytest.approx(traded, rel=1e-6)


def test_peaks_and_the_prior_day_outlive_a_restart() -> None:
    book = make_book()
    book.add_position(position("A0", "SAP", 1000.0, 1))
    book.revalue(NOW)
    first = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    first.run(NOW)
    book.add_mark(mark("SAP", 90.0))
    book.revalue(NOW)
    before = first.run(NOW + 1).models["firm"]
    assert before["drawdown"]["since_inception"] < -0.001
    again = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    again.resume("firm", NOW, before, {"var_hist": 7.0})
    book.add_mark(mark("SAP", 95.0))
    book.revalue(NOW)
    run = again.run(NOW + 2)
    assert run.models["firm"]["drawdown"]["since_inception"] == pytest.approx(before["drawdown"]["since_inception"])
    assert run.models["firm"]["drawdown"]["peak_ns"] == before["drawdown"]["peak_ns"] and again.prior["firm"] == {"var_hist": 7.0}
    assert run.models["desk:D0"]["drawdown"]["since_inception"] == 0.0  # nothing was held of it
    again.run(NOW + 86_400_000_000_000)  # a day later the last figures are the prior day's
    assert again.prior["firm"] == run.metrics["firm"]


def test_contributors_are_compared_with_the_day_before_also_after_a_restart() -> None:
    day = 86_400_000_000_000
    book = make_book()
    book.add_position(position("A0", "SAP", 1000.0, 1))
    book.revalue(NOW)
    models = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)

    def gross(run: Any, node: str = "firm") -> dict[str, tuple[float, float | None]]:
        return {t["id"]: (t["value"], t["prior_day"]) for t in run.top[node]["gross"]}

    first = gross(models.run(NOW))
    assert first["SAP"][0] > 0 and first["SAP"][1] is None  # there is no day before
    book.add_position(position("A0", "SAP", 600.0, 2))
    book.add_position(position("A1", "TOYO", 50.0, 3))
    book.revalue(NOW)
    second = models.run(NOW + day)
    found = gross(second)
    assert found["SAP"] == pytest.approx((0.6 * first["SAP"][0], first["SAP"][0]))
    assert found["TOYO"][0] > 0 and found["TOYO"][1] == 0.0  # nothing was held of it, which is known
    fund = next(n for n in second.top if n.startswith("fund:") and "SAP" in gross(second, n))
    ratio = gross(second, fund)["SAP"][0] / found["SAP"][0]
    assert gross(second, fund)["SAP"][1] == pytest.approx(ratio * first["SAP"][0])  # in the fund's own currency

    again = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    again.resume("firm", NOW + day, second.models["firm"], {}, second.top["firm"])
    assert gross(again.run(NOW + day + 1))["SAP"] == pytest.approx(found["SAP"])
    later = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)  # it was down when the day ended
    later.resume("firm", NOW + day, second.models["firm"], {}, second.top["firm"])
    assert gross(later.run(NOW + 2 * day))["SAP"] == pytest.approx((found["SAP"][0], found["SAP"][0]))


def test_a_day_on_which_nothing_was_held_is_known_to_have_contributed_nothing() -> None:
    day = 86_400_000_000_000
    book = make_book()
    book.add_position(position("A0", "SAP", 1000.0, 1), shard=1)
    book.revalue(NOW)
    models = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    models.run(NOW)
    book.remove_shard(1)
    book.revalue(NOW)
    emptied = models.run(NOW + day)
    assert emptied.models["firm"]["pnl_explain"]["total"] is not None and not emptied.top["firm"].get("gross")
    book.add_position(position("A0", "SAP", 1000.0, 2), shard=1)
    book.revalue(NOW)
    (entry,) = models.run(NOW + 2 * day).top["firm"]["gross"]
    assert entry["value"] > 0 and entry["prior_day"] == 0.0

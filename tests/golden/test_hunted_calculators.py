"""Bug reports of other people's bonds, statistics, positions and margin, asked of the calculators (docs/field-log.md)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from app.calc import calculate


def buy(qty: float, price: float, **more: Any) -> dict[str, Any]:
    return {"side": "buy", "qty": qty, "price": price, **more}


def sell(qty: float, price: float, **more: Any) -> dict[str, Any]:
    return buy(qty, price, **more) | {"side": "sell"}


#: (report, calculator, line, the field refused or what is expected, within)
HUNTED: list[tuple[str, str, dict[str, Any], str | dict[str, Any], float]] = [
    # a year of 1.75 at par on a 31st: what is left of a period is 180 days less the 6 that have run, not 175 from the 30th
    ("QuantLib 282", "bond", {"settle": "2016-08-31", "dated": "2016-08-25", "maturity": "2017-08-25", "coupon": 1.75, "clean": 100,
                              "day_count": "30/360 US"}, {"ytm_percent": 1.75}, 2e-4),
    ("QuantLib 1804", "bond", {"settle": "2023-06-15", "dated": "2023-04-10", "maturity": "2029-09-30", "coupon": 5, "clean": 100, "day_count": "30/360 US"},
     {"accrued": 5 * 65 / 360, "next_coupon": "2023-09-30"}, 1e-12),
    ("QuantLib 1910", "bond", {"settle": "2017-12-15", "dated": "2017-09-30", "first_coupon": "2018-03-31", "maturity": "2022-09-30", "coupon": 1.875,
                               "clean": 100}, {"accrued": 0.9375 * 76 / 182, "next_coupon": "2018-03-31"}, 1e-12),
    # a long first coupon, in its first and in its second quasi-coupon period
    ("QuantLib 215", "bond", {"settle": "2017-01-29", "dated": "2017-01-17", "first_coupon": "2017-08-31", "maturity": "2026-02-28", "coupon": 3, "ytm": 0.03},
     {"accrued": 1.5 * 12 / 181}, 1e-12),
    ("QuantLib 215", "bond", {"settle": "2017-04-29", "dated": "2017-01-17", "first_coupon": "2017-08-31", "maturity": "2026-02-28", "coupon": 3, "ytm": 0.03},
     {"accrued": 1.5 * (42 / 181 + 60 / 184)}, 1e-12),
    *(("QuantLib 256", "bond", {"settle": day, "maturity": "2010-01-01", "coupon": 10, "clean": 90, "day_count": "30/360 US"},
       {"ytm_percent": y}, 0.005) for day, y in (("2000-01-01", 11.72), ("2005-01-01", 12.77), ("2008-02-01", 16.26), ("2008-04-01", 16.8),
                                                 ("2009-04-01", 25.35))),
    # dates counted on from the first coupon: both ends odd
    ("Strata 2592", "bond", {"settle": "2023-06-06", "dated": "2015-02-13", "first_coupon": "2015-09-01", "maturity": "2025-02-13", "coupon": 3.75,
                             "ytm": 0.05, "day_count": "30/360 US", "schedule": "forward"},
     {"accrued": 3.75 * 95 / 360, "dirty": sum(a * 1.025 ** -t for a, t in ((1.875, 85 / 180), (1.875, 265 / 180), (1.875, 445 / 180),
                                                                            (100 + 3.75 * 162 / 360, 445 / 180 + 0.9)))}, 1e-10),
    ("Strata 2592", "bond", {"settle": "2023-06-06", "dated": "2015-02-13", "first_coupon": "2015-09-01", "maturity": "2025-02-13", "coupon": 3.75,
                             "ytm": 0.05, "day_count": "30/360 US"}, "first_coupon", 0),
    ("QuantLib-SWIG 632", "bond", {"settle": "2023-03-15", "dated": "2023-02-15", "first_coupon": "2023-04-30", "maturity": "2024-05-31", "coupon": 4,
                                   "frequency": 4, "clean": 100, "schedule": "forward"}, {"accrued": 28 / 89}, 1e-12),
    ("FinancePy 36", "bond", {"settle": "2026-01-22", "maturity": "2034-07-31", "coupon": 4.25, "ytm": 0.04, "ex_dividend_days": 7, "calendar": "GB"},
     {"accrued": -2.125 * 9 / 184, "ex_dividend": True, "accrued_days": -9}, 1e-12),
    ("FinancePy 155", "bond", {"settle": "2023-02-15", "maturity": "2027-02-15", "coupon": 4, "ytm": 0.04}, {"accrued": 0.0, "clean": 100.0}, 1e-10),
    ("FinancePy 140", "money_market", {"settle": "2022-08-08", "maturity": "2022-10-24", "clean": 99.7056}, {"bond_equivalent_yield": 0.013998}, 3e-6),
    ("FinancePy 267", "bond", {"settle": "2025-01-01", "maturity": "2026-01-01", "coupon": 0, "frequency": 1, "ytm": 0.05},
     {"modified_duration": 1 / 1.05, "dirty": 100 / 1.05}, 1e-12),
    ("bond_pricing 1", "bond", {"settle": "2021-01-01", "maturity": "2031-01-01", "coupon": 5, "ytm": 0.01}, {"clean": 137.9748}, 5e-5),
    ("bond_pricing 2", "bond", {"settle": "2023-12-18", "maturity": "2024-08-31", "coupon": 1.25, "ytm": 0.05209},
     {"previous_coupon": "2023-08-31", "next_coupon": "2024-02-29", "accrued": 0.625 * 109 / 182}, 1e-12),
    ("ExcelFinancialFunctions 8", "bond", {"settle": "2015-09-21", "maturity": "2015-10-15", "coupon": 4.625, "clean": 105.124, "day_count": "30/360 US",
                                           "last_period": "simple"}, {"ytm": -0.67429}, 5e-6),
    ("QuantLib 1168", "bond", {"settle": "2021-05-23", "maturity": "2021-05-24", "coupon": 8.25, "clean": 90}, "clean", 0),
    ("QuantLib 1168", "bond", {"settle": "2021-05-23", "maturity": "2021-05-24", "coupon": 8.25, "clean": 90, "last_period": "simple"},
     {"ytm": (104.125 / (90 + 4.125 * 180 / 181) - 1) * 362}, 1e-9),
    ("rateslib 33", "money_market", {"settle": "2023-08-25", "issue": "2023-08-10", "maturity": "2024-08-08", "clean": 96.1030}, {"discount_rate": 0.040198}, 5e-7),
    ("rateslib 144", "money_market", {"settle": "2024-02-29", "issue": "2024-02-29", "maturity": "2024-05-30", "discount_rate": 0.05},
     {"bond_equivalent_yield": (100 / (100 * (1 - 0.05 * 91 / 360)) - 1) * 365 / 91}, 1e-12),
    # quotes of a Saturday: QuantLib asks for Friday's fixing of a deposit
    ("QuantLib-old 117", "curve", {"as_of": "2024-01-06", "calendar": "TARGET", "deposits": [["3M", 0.03]]},
     {"rates": [[95.0, math.log(1 + 0.03 * 91 / 360) * 365 / 91]]}, 1e-9),
    ("pyfolio 179", "drawdown", {"returns": [-0.1, -0.75 / 0.9 + 2 / 3]}, {"max_drawdown": -0.25}, 1e-12),
    ("ffn 326", "drawdown", {"returns": [-0.1, -0.2, 0.5], "dates": ["1", "2", "3"]}, {"episodes": [{"from": "1", "trough_at": "2", "to": "3"}]}, 0),
    ("QuantInvestStrats 15", "drawdown", {"equity": [100, 99, 50, 90, 100], "dates": ["1", "2", "3", "4", "5"]},
     {"max_drawdown": -0.5, "episodes": [{"from": "2", "trough_at": "3", "to": "5", "length": 4}]}, 1e-12),
    ("Vibe-Trading 524", "drawdown", {"equity": [1_000_000, 250_000, -500_000]}, "equity", 0),
    ("Vibe-Trading 524", "performance", {"returns": [-0.75, -3.0]}, {"annual_return": None}, 0),
    ("ffn 346", "performance", {"returns": [0.001 + 0.0004] * 6, "risk_free": 0.0004}, {"sharpe": None}, 0),
    ("empyrical 93", "performance", {"returns": [0.1] * 5}, {"sharpe": None, "sortino": None}, 0),
    ("trade 40", "performance", {"returns": [0.01, -0.02, 0.03, -0.01]}, {"sortino": 0.0025 / math.sqrt(5e-4 / 4) * math.sqrt(252)}, 1e-9),
    ("PyPortfolioOpt 166", "performance", {"returns": [0.1, -0.1], "periods_per_year": 1}, {"annual_return": 0.99 ** 0.5 - 1}, 1e-12),
    ("empyrical 60", "capm", {"returns": [0.01, 0.10, -0.04, 0.02, 0.03, 0.02, 0.01, -0.10], "periods_per_year": 252,
                              "benchmark": [-0.06, -0.07, -0.01, -0.09, -0.02, -0.06, -0.08, -0.05]},
     {"alpha_annualised": -0.9997853834885004, "beta": -0.71296296296296313}, 1e-12),
    ("empyrical 18", "performance", {"returns": [0.01, None, 0.03, -0.02], "benchmark": [0.02, 0.5, None, -0.01]}, {"beta": 1.0}, 1e-9),
    ("raven 1749", "var", {"returns": [0.01, 0.02, 0.03, 0.04], "level": 0.95}, {"var": -0.01, "es": -0.01}, 1e-12),
    ("quantstats 547", "var", {"returns": [-0.02, 0.0, 0.02], "level": 0.95, "method": "gaussian", "sd": "sample"},
     {"es": 0.02 * math.exp(-0.5 * 1.6448536269514722 ** 2) / math.sqrt(2 * math.pi) / 0.05}, 1e-9),
    ("Riskfolio 129", "component_var", {"values": {"a": 1, "b": 1}, "covariance": [[1, 1], [1, 1]], "z": 2}, {"portfolio_var": 4.0}, 1e-12),
    ("PyPortfolioOpt 479", "component_var", {"values": {"a": 1, "b": 1}, "covariance": [[1, None], [None, 1]], "z": 2}, "covariance[0][1]", 0),
    ("GAS 5", "backtest", {"hits": [0] * 100, "level": 0.99}, {"lr_pof": -200 * math.log(0.99), "lr_independence": 0.0}, 1e-9),
    ("Finance-Guru 102", "leverage", {"exposures": {"a": [100]}, "nav": 0}, "nav", 0),
    ("nautilus 1083", "position", {"fills": [buy(1, 100), sell(3, 110)]}, {"realised_pnl": 10.0, "qty": -2.0, "avg_price": 110.0}, 1e-12),
    ("jesse 517", "position", {"fills": [buy(2, 100, fee=0.1), sell(2, 110, fee=0.11)]}, {"realized_net": 19.79}, 1e-12),
    ("wealthfolio 382", "position", {"fills": [buy(100, 9), buy(100, 10), buy(100, 11), sell(200, 8)], "mark": 9},
     {"realised_pnl": -400.0, "marks": [{"unrealised_pnl": -100.0, "total": -500.0}]}, 1e-9),
    ("beancount 42", "position", {"fills": [buy(20, 15), buy(1, 0)], "mark": 16}, {"avg_price": 300 / 21, "marks": [{"unrealised_pnl": 36.0}]}, 1e-9),
    ("ghostfolio 5416", "position", {"fills": [sell(50, 10), sell(50, 20), buy(20, 12)], "mark": 15},
     {"avg_price": 15.0, "realised_pnl": 60.0, "marks": [{"unrealised_pnl": 0.0}]}, 1e-9),
    ("trade-executor 459", "closed_trades", {"fills": [buy(0.1, 10), buy(0.2, 10), sell(0.3, 11)], "matching": "flat_to_flat"},
     {"trades": [{"qty": 0.3, "pnl": 0.3}]}, 1e-15),
    ("gateapi 4", "position", {"fills": [buy(1, 10_000), sell(1, 11_000)], "multiplier": 0.0001}, {"realised_pnl": 0.1}, 1e-12),
    ("gateapi 137", "funding", {"kind": "inverse", "qty": 10, "multiplier": 0, "price": 50_000, "funding_rate": 0.0001}, "multiplier", 0),
    ("nibiru 969", "funding", {"qty": -2, "price": 20_000, "funding_rate": 0.0001}, {"funding": 4.0}, 1e-12),
    ("nautilus 4110", "margin", {"legs": [buy(3, 1), sell(2, 1), buy(1, 1)], "price": 100, "margin_maintenance": 0.05}, "legs[0].price", 0),
    ("nautilus 4110", "margin", {"legs": [{"side": "buy", "qty": 3}, {"side": "sell", "qty": 2}, {"side": "buy", "qty": 1}], "price": 100,
                                 "margin_maintenance": 0.05}, {"net_quantity": 2.0, "maintenance_margin": 10.0}, 1e-12),
    ("nautilus 2278", "margin", {"qty": 1, "price": 137_500, "margin_initial": 3000 / 137_500, "leverage": 10}, "leverage", 0),
    ("Vibe-Trading 889", "margin", {"qty": 1, "price": 50_000, "tiers": [[50_000, 0.004], [250_000, 0.005]]}, {"maintenance_margin": 200.0}, 1e-9),
    ("Vibe-Trading 889", "margin", {"qty": 1, "price": 250_001, "tiers": [[50_000, 0.004], [250_000, 0.005]]}, "tiers[1][0]", 0),
]


def near(got: Any, want: Any, within: float) -> bool:
    """Whether an answer has what is expected of it; what that does not name is not compared."""
    if isinstance(want, dict):
        return all(near(got.get(k), v, within) for k, v in want.items())
    if isinstance(want, list):
        return len(got) == len(want) and all(near(g, w, within) for g, w in zip(got, want, strict=True))
    return bool(abs(got - want) <= within) if isinstance(want, float) and got is not None else got == want


@pytest.mark.parametrize(("calculator", "line", "want", "within"), [pytest.param(*case[1:], id=f"{case[0]} {i}") for i, case in enumerate(HUNTED)])
def test_a_report_of_others_is_answered_right(calculator: str, line: dict[str, Any], want: str | dict[str, Any], within: float) -> None:
    got = calculate(calculator, line)
    if isinstance(want, str):
        assert got.get("error", {}).get("field") == want, got
    else:
        assert "error" not in got, got["error"]
        assert near(got, want, within), {k: got.get(k) for k in want}

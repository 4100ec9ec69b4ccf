"""Every calculator reads all of its line or refuses it: unknown fields, null, text, booleans, empty arrays, anywhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

from app.calc import calculate, describe

#: a good line for every calculator, nested objects included
GOOD: dict[str, dict[str, Any]] = {
    "option": {"type": "call", "S": 100, "K": 100, "t": 1, "vol": 0.2, "r": 0.05},
    "implied_vol": {"type": "put", "S": 100, "K": 100, "t": 1, "market_price": 8.0, "r": 0.05},
    "barrier": {"type": "call", "barrier_type": "up_and_out", "S": 100, "K": 100, "B": 130, "rebate": 1, "t": 1, "vol": 0.2, "r": 0.05},
    "digital": {"type": "call", "payoff": "cash_or_nothing", "cash": 10, "S": 100, "K": 100, "t": 1, "vol": 0.2, "r": 0.05},
    "fx_option": {"type": "call", "S": 1.1, "K": 1.1, "t": 1, "vol": 0.1, "r_domestic": 0.05, "r_foreign": 0.03, "pair": "EURUSD"},
    "fx_delta": {"type": "call", "delta_type": "spot", "S": 1.1, "K": 1.1, "t": 1, "vol": 0.1, "r_domestic": 0.05, "r_foreign": 0.03},
    "fx_forward": {"S": 1.1, "r_domestic": 0.05, "r_foreign": 0.03, "t": 1, "strike": 1.1, "notional_foreign": 100},
    "fx_cross": {"pair": "EUR/JPY", "quotes": {"EUR/USD": [1.1, 1.2], "USD/JPY": [150, 151]}, "side": "mid"},
    "position": {"fills": [{"side": "buy", "qty": 2, "price": 10, "fee": 0.1}, {"side": "sell", "qty": 1, "price": 11}], "marks": [10]},
    "closed_trades": {"fills": [{"side": "buy", "qty": 1, "price": 10}, {"side": "sell", "qty": 1, "price": 11}], "matching": "lifo"},
    "bond": {"settle": "2024-08-29", "maturity": "2031-08-15", "coupon": 4, "ytm": 0.03},
    "money_market": {"settle": "2024-01-04", "maturity": "2024-06-26", "discount_rate": 0.047},
    "settlement": {"date": "2024-08-29", "calendar": "GB", "business_days": 2},
    "curve": {"as_of": "2024-01-04", "calendar": "TARGET", "deposits": [["3M", 0.03], ["6M", 0.031]]},
    "margin": {"qty": 1, "price": 300000, "tiers": [[50000, 0.004], [250000, 0.005], [None, 0.01]]},
    "funding": {"qty": 100, "price": 5, "funding_rate": 0.0001},
    "var": {"pnl": [-3.0, 1.0, 2.0, -1.0, 0.5], "level": 0.9},
    "component_var": {"values": {"a": 1, "b": 2}, "vols": {"a": 0.1, "b": 0.2}, "correlation": [[1, 0.5], [0.5, 1]], "level": 0.95},
    "kupiec": {"n": 250, "exceptions": 5, "level": 0.99},
    "traffic_light": {"exceptions": 5, "level": 0.99},
    "backtest": {"pnl": [-1.0, 2.0, -3.0, 1.0], "var": [2.0, 2.0, 2.0, 2.0], "level": 0.95},
    "drawdown": {"equity": [100.0, 90.0, 110.0], "dates": ["2024-01-02", "2024-01-03", "2024-01-04"]},
    "performance": {"returns": [0.01, -0.02, 0.015], "benchmark": [0.01, -0.01, 0.02]},
    "capm": {"returns": [0.01, -0.02, 0.015, -0.01], "benchmark": [0.01, -0.01, 0.02, -0.02]},
    "regression": {"y": [1.0, 2.0, 2.5, 4.5], "X": [[1.0], [2.0], [3.0], [4.0]]},
    "factor_risk": {"exposures": [1.0, 2.0], "covariance": [[0.04, 0.01], [0.01, 0.09]]},
    "concentration": {"values": {"a": 1, "b": 2}},
    "liquidity": {"quantity": 100, "adv": 1000, "value": 10, "spread": 0.01, "var": 5},
    "leverage": {"exposures": {"a": [100, -50], "b": 10}, "nav": 100},
}
#: null has a meaning of its own there: missing in a series, no end of a tier
NULLABLE = {"pnl", "returns", "benchmark", "exposures", "y", "var", "equity", "tiers"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every place of a line with what stands there."""
    yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for k, v in parts:
        yield from places(v, (*path, k))


def changed(line: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a line with another value in one place."""
    out = copy.deepcopy(line)
    at: Any = out
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return out


def nulls(value: Any) -> bool:
    """Whether there is a null anywhere in an answer."""
    return value is None or any(nulls(v) for v in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def test_there_is_a_good_line_for_every_calculator() -> None:
    assert set(GOOD) == {name for name, _, _ in describe()}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_nothing_of_a_line_is_left_out_or_taken_for_something_else(name: str) -> None:
    line = GOOD[name]
    good = calculate(name, line)
    assert "error" not in good and (not nulls(good) or good["undefined"]), good
    named = {"values", "vols", "quotes", "exposures"}  # objects whose keys are names of the user's
    for path, value in places(line):
        if isinstance(value, dict) and not (path and path[-1] in named):
            error = calculate(name, changed(line, (*path, "colour"), "red"))["error"]
            assert error["field"].endswith("colour") and error["value"] == "red", error
        if not path:
            continue
        wrong = [math.nan, math.inf, {"x": "1"}, [], *([True] if not isinstance(value, bool) else []),
                 *(["much", "1"] if isinstance(value, int | float) else []), *([7.5] if isinstance(value, str) else []),
                 *([None] if path[0] not in NULLABLE or len(path) == 1 else [])]
        for bad in wrong:
            got = calculate(name, changed(line, path, bad))
            assert "error" in got, (path, bad, got)
            assert got["error"]["field"].startswith(str(path[0])), (path, bad, got["error"])

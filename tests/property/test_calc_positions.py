"""`calc position` and `calc closed_trades`: exact decimals, one unit for one profit, totals that no method changes."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calc import calculate, run_lines

QUANTITY = st.sampled_from(["0.1", "0.2", "0.3", "1", "2.5", "0.123456789", "0.000000000001", "17"])
FILL = st.tuples(st.sampled_from(["buy", "sell"]), QUANTITY, st.integers(1, 99_999), st.integers(0, 300))
FILLS = st.lists(FILL, min_size=1, max_size=14)


def answer(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a line as it is written: numbers of a line keep their digits."""
    return next(run_lines(name, [json.dumps(fields)]))


def lines(fills: list[Any], sign: int = 1, first: int = 0) -> list[dict[str, Any]]:
    return [{"side": side, "qty": float(q), "price": sign * price / 100, "fee": fee / 100} for side, q, price, fee in fills[first:]]


@settings(max_examples=120)
@given(FILLS, st.sampled_from(["equity", "inverse", "future"]), st.sampled_from([1, 50, 0.01]), st.integers(1, 99_999))
def test_every_way_to_split_a_profit_has_the_same_sum(fills: list[Any], kind: str, multiplier: float, mark: int) -> None:
    """Against a fold in fractions; average cost, FIFO, LIFO and flat to flat move profit between realised and open alone."""
    inverse, sign = kind == "inverse", -1 if kind == "future" else 1
    held, _cost, spent = Fraction(0), Fraction(0), Fraction(0)
    for (side, q, price, _) in fills:
        signed = Fraction(q) * (1 if side == "buy" else -1)
        held += signed
        # what was paid in the currency of the P&L: quote for linear contracts, the coin for inverse ones
        spent += signed * (Fraction(-100, price) if inverse else Fraction(sign * price, 100))
    now = Fraction(-100, mark) if inverse else Fraction(sign * mark, 100)
    total = float((held * now - spent) * Fraction(str(multiplier)))
    fields = {"fills": lines(fills, sign), "multiplier": multiplier, "mark": sign * mark / 100} | (
        {"inverse": True} if inverse else {"kind": kind})
    got = answer("position", fields)
    assert Fraction(got["quantity"]) == held and got["qty"] == float(held), "decimals are exact"
    scale = 1e-9 * float(sum(Fraction(q) * (Fraction(100, p) if inverse else Fraction(p, 100)) for _, q, p, _ in fills)
                         + abs(held) * abs(now)) * multiplier
    assert got["realised_pnl"] + got["marks"][0]["unrealised_pnl"] == pytest.approx(total, abs=scale + 1e-12)
    fees = sum(f for *_, f in fills) / 100
    assert got["fees"] == pytest.approx(fees) and got["realized_net"] == pytest.approx(got["realised_pnl"] - fees, abs=scale + 1e-9)
    closed = {m: sum(t["pnl"] for t in trades) for m, trades in got["closed"].items()}
    assert closed["fifo"] == pytest.approx(got["fifo_realised_pnl"], abs=scale + 1e-12)
    if not held:
        for pnl in (*closed.values(), got["realised_pnl"]):
            assert pnl == pytest.approx(total, abs=scale + 1e-12)
        assert sum(t["qty"] for t in got["closed"]["lifo"]) == pytest.approx(sum(t["qty"] for t in got["closed"]["fifo"]))
    open_part = got["open"]["realized_net"] + got["open"]["fees_enter"] + got["open"]["fees_exit"] if got["open"] else 0.0
    trips = got["closed"]["flat_to_flat"]
    exited = got["exited"]["realized_net"] + got["exited"]["fees_enter"] + got["exited"]["fees_exit"] if got["exited"] else None
    assert (exited is None) == (not trips)
    if trips:
        assert exited == pytest.approx(trips[-1]["pnl"], abs=scale + 1e-12), "closed and exited are in one unit"
        assert sum(t["pnl"] for t in trips) + open_part == pytest.approx(got["realised_pnl"], abs=scale + 1e-12)
    single = answer("closed_trades", {k: v for k, v in fields.items() if k != "mark"} | {"matching": "flat_to_flat"})
    assert single["trades"] == trips


@given(st.integers(1, 10**15), st.integers(0, 12), st.integers(1, 400))
def test_what_adds_up_to_nothing_is_flat(mantissa: int, scale: int, parts: int) -> None:
    """So many equal buys and one sale of their sum: flat, one trade, whatever a double makes of them."""
    parts = max(1, min(parts, 4 * 10**18 // mantissa))
    text = json.dumps([{"side": "buy", "qty": f"#{mantissa}e-{scale}#", "price": 10}] * min(parts, 6)
                      + [{"side": "sell", "qty": f"#{mantissa * min(parts, 6)}e-{scale}#", "price": 11}]).replace('"#', "").replace('#"', "")
    got = next(run_lines("position", [f'{{"fills": {text}}}']))
    assert got["quantity"] == "0" and got["qty"] == 0.0 and got["open"] is None, got
    assert [len(got["closed"][m]) for m in ("fifo", "flat_to_flat")] == [min(parts, 6), 1]


@pytest.mark.parametrize(("line", "field"), [
    ({"fills": [{"side": "buy", "qty": 1, "price": -1}]}, "fills[0].price"), ({"fills": [{"side": "buy", "qty": 1, "price": 0}], "inverse": True}, "fills[0].price"),
    ({"fills": [{"side": "buy", "qty": 0, "price": 1}]}, "fills[0].qty"), ({"fills": [{"side": "buy", "qty": 1.0000000000001, "price": 1}]}, "fills[0].qty"),
    ({"fills": [{"side": "hold", "qty": 1, "price": 1}]}, "fills[0].side"),
    ({"fills": [{"side": "buy", "qty": 1, "price": 1, "fee": 1, "fees": []}]}, "fills[0].fees"),
    ({"fills": [{"side": "buy", "qty": 1, "price": 1, "fees": [{"amount": "1", "currency": "USD"}, {"amount": "1", "currency": "BNB"}]}]}, "fills[0].fees[1].currency"),
    ({"fills": [{"side": "buy", "qty": 1, "price": 1, "fees": [{"amount": "1", "currency": "BNB"}]}], "quote_currency": "USD"}, "fills[0].fees[0].currency"),
    ({"fills": [{"side": "buy", "qty": 1, "price": 1}], "inverse": True, "kind": "equity"}, "kind"), ({"fills": [{"side": "buy", "qty": 1, "price": 1}], "mark": -1}, "mark"),
    ({"fills": [{"side": "buy", "qty": 1e-9, "price": 1}, {"side": "buy", "qty": 9.9e9, "price": 1}]}, "fills[1]")])
def test_fills_that_are_none_are_refused_by_name(line: dict[str, Any], field: str) -> None:
    assert calculate("position", line).get("error", {}).get("field") == field

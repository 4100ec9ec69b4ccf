"""Calculators as an analyst uses them: JSON lines, clear errors, nothing read silently or left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.calc import calculate, run_lines
from app.cli import cli

CALL = {"type": "call", "S": 49, "K": 50, "r": 0.05, "q": 0, "t": 0.3846, "vol": 0.2}


def test_a_line_names_its_conventions_and_every_default() -> None:
    got = calculate("option", {k: v for k, v in CALL.items() if k != "q"})
    assert got["conventions"]["exercise"] == "european" and "b = r - q" in got["conventions"]["carry"]
    assert got["conventions"]["dividend_yield"] == 0.0


@pytest.mark.parametrize(("change", "field"), [({"K": -1}, "K"), ({"vol": "high"}, "vol"), ({"type": "straddle"}, "type"),
                                               ({"S": None}, "S"), ({"t": float("nan")}, "t"), ({"spot": 50}, "spot"),
                                               ({"t_days": 30}, "t_days"), ({"r": "0.05"}, "r"), ({"q": True}, "q")])
def test_a_wrong_field_is_named_as_the_line_names_it(change: dict, field: str) -> None:
    error = calculate("option", CALL | change)["error"]
    assert error["field"] == field and error["expected"]


def test_a_field_that_nobody_reads_is_refused_with_the_nearest_name() -> None:
    error = calculate("option", CALL | {"divdend_yield": 0.1})["error"]
    assert (error["field"], error["value"], error["nearest"]) == ("divdend_yield", 0.1, "dividend_yield")
    missing = {"strke" if k == "K" else k: v for k, v in CALL.items()}
    assert (calculate("option", missing)["error"]["field"], calculate("option", missing)["error"]["nearest"]) == ("strke", "strike")
    fills = [{"side": "buy", "qty": 1, "price": 10, "prise": 11}]
    assert calculate("position", {"fills": fills})["error"]["field"] == "fills[0].prise"
    # two ways to say one thing may both be there where they agree
    assert "error" not in calculate("option", CALL | {"strike": 50, "t": 1, "t_days": 365})


def test_a_name_twice_in_a_line_is_refused() -> None:
    (got,) = run_lines("option", ['{"type": "call", "S": 49, "K": 50, "K": 51, "r": 0.05, "t": 1, "vol": 0.2}'])
    assert got["error"]["field"] == "K" and got["error"]["value"] == [50, 51]


def test_a_bad_line_costs_its_neighbours_nothing() -> None:
    got = list(run_lines("option", [json.dumps(CALL), "{", "[1]", "", json.dumps(CALL)]))
    assert [("error" in g) for g in got] == [False, True, True, False]
    assert [g["error"]["field"] for g in got[1:3]] == ["line", "line"]
    assert got[0]["price"] == got[3]["price"]


def test_a_price_outside_the_no_arbitrage_bounds_has_no_volatility() -> None:
    got = calculate("implied_vol", {k: v for k, v in CALL.items() if k != "vol"} | {"market_price": 60})
    assert got["error"]["field"] == "market_price" and "no-arbitrage" in got["error"]["expected"]


def test_confidence_ranks_come_from_decimals() -> None:
    """In doubles 500 * (1 - 0.99) is a hair above 5; the default rule means the 6th worst, never the 7th."""
    pnl = [float(-i) for i in range(1, 501)]
    assert calculate("var", {"pnl": pnl, "level": 0.99})["var"] == 495.0
    assert calculate("var", {"pnl": pnl, "level": 0.95})["var"] == 475.0
    assert calculate("var", {"pnl": pnl, "level": 0.975})["var"] == 488.0


def test_the_command_reads_and_writes_lines(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps(CALL) + "\n" + json.dumps(CALL | {"K": 0}) + "\n")
    done = CliRunner().invoke(cli, ["calc", "option", str(file)])
    first, second = (json.loads(line) for line in done.stdout.splitlines()[:2])
    assert done.exit_code == 1 and first["delta"] > 0.5 and second["error"]["field"] == "K"
    assert CliRunner().invoke(cli, ["calc", "nonsense"]).exit_code == 2
    # nothing recognised is a failure; a byte-order mark is no text, other encodings cost their line alone
    file.write_bytes(b"\n \n")
    assert CliRunner().invoke(cli, ["calc", "option", str(file)]).exit_code == 1
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(CALL).encode() + b"\r\n{\"type\": \"\xe9\"}\n" + json.dumps(CALL).encode())
    lines = [json.loads(t) for t in CliRunner().invoke(cli, ["calc", "option", str(file)]).stdout.splitlines()[:3]]
    assert [("error" in t) for t in lines] == [False, True, False] and lines[1]["error"]["field"] == "line"
    assert "historical" in CliRunner().invoke(cli, ["calc", "list"]).stdout


def test_a_cross_rate_says_its_path_whatever_the_order_of_the_quotes() -> None:
    quotes = {"EUR/USD": [1.1, 1.1], "GBP/JPY": [190.0, 190.0], "EUR/GBP": [0.85, 0.85], "USD/JPY": [150.0, 150.0]}
    for order in (list(quotes), list(reversed(quotes))):
        got = calculate("fx_cross", {"pair": "EUR/JPY", "quotes": {k: quotes[k] for k in order}})
        assert got["path"] == ["EUR", "GBP", "JPY"] and got["value"] == pytest.approx(0.85 * 190)
    none = calculate("fx_cross", {"pair": "EUR/SEK", "quotes": quotes})
    assert none["value"] is None and set(none["undefined"]) == {"value", "path"}
    apart = calculate("fx_cross", {"pair": "SGD/BND", "quotes": {"SGD/BND": [0.99998, 0.99998], "BND/SGD": [0.99999, 0.99999]}})
    assert apart["error"]["field"] == "quotes.SGD/BND"


@pytest.mark.parametrize("side", ["mid", "bid", "ask", "dealer_bid", "dealer_ask"])
def test_a_cross_rate_is_not_made_of_crossed_quotes(side: str) -> None:
    quotes = {"EUR/USD": [1.2, 1.1], "USD/JPY": [150.0, 151.0]}
    for pair in ("EUR/JPY", "USD/JPY"):  # also where it is not on the path
        error = calculate("fx_cross", {"pair": pair, "quotes": quotes, "side": side})["error"]
        assert error["field"] == "quotes.EUR/USD" and "above its ask" in error["expected"] and "1.2" in str(error["value"]), error


def test_a_published_reciprocal_of_bids_says_that_its_quotes_are_crossed() -> None:
    got = calculate("fx_cross", {"pair": "USD/BTC", "side": "bid_reciprocal", "quotes": {"BTC/USD": [10501.5, 10500.0]}})
    assert got["value"] == pytest.approx(1 / 10501.5) and "bids alone" in got["conventions"]["crossed"]


def test_carry_and_dividend_yield_may_both_be_there_while_they_agree() -> None:
    line = {k: v for k, v in CALL.items() if k != "q"} | {"b": 0.03}
    assert calculate("option", line | {"q": 0.02})["price"] == calculate("option", line)["price"]
    assert calculate("option", line | {"q": 0.03})["error"]["field"] == "q"

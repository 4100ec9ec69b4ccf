"""Histories: dates are parsed, moves are of a stated type, and what is odd is said."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.history import HistoryError, load_history, load_levels
from app.history_report import examine, findings

ROOT = Path(__file__).resolve().parent.parent.parent


def file(folder: Path, text: str | bytes, name: str = "h.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refused(folder: Path, text: str | bytes, name: str = "h.csv") -> str:
    with pytest.raises(HistoryError) as error:
        load_history(file(folder, text, name))
    return str(error.value)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(8)), st.sampled_from(["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%dT00:00:00-05:00", "%Y-%m-%d 23:59:59"]), st.booleans(),
       st.dates(date(1999, 12, 25), date(2030, 1, 5)))
def test_moves_do_not_depend_on_the_order_or_the_form_of_a_file(tmp_path: Path, order: list[int], form: str, long: bool, first: date) -> None:
    days, prices = [first + timedelta(days=k) for k in range(8)], [100.0 + 3 * k * (-1) ** k for k in range(8)]
    rows = [(datetime.combine(days[k], datetime.min.time()).strftime(form), prices[k]) for k in order]
    text = "date,symbol,close\n" + "".join(f"{d},0700,{p}\n" for d, p in rows) if long else "date,0700\n" + "".join(f"{d},{p}\n" for d, p in rows)
    found = load_history(file(tmp_path, text))
    assert (found.factors, found.days) == (("0700",), tuple(d.isoformat() for d in days[1:]))
    np.testing.assert_allclose(found.moves[:, 0], np.diff(prices) / np.array(prices)[:-1])


@pytest.mark.parametrize("cell", ["12/29/2023", "01/02/2024", "29.12.2023", "29/12/23", "2024-13-01", "2024-02-30", "29 Dec 2023", "45293", "0001-01-01", "9999-12-31",
                                  "2023-12", "1700000000", "soon", "", "20240230", "２０２４-01-01"])
def test_dates_of_other_orders_are_refused_with_file_line_field_and_value(tmp_path: Path, cell: str) -> None:
    text = refused(tmp_path, f"date,X\n2023-12-28,1\n{cell},100\n2024-01-02,110\n")
    assert text == f"h.csv:3: date: expected a date as 2026-11-20 (day and month of other orders are not guessed), was {cell!r}"


def test_dates_of_parquet_are_those_of_their_zone(tmp_path: Path) -> None:
    def moves(dates: Any) -> tuple[str, ...]:
        sink = io.BytesIO()
        parquet.write_table(pa.table({"Date": dates, "X": [1.0, 2.0, 3.0]}), sink)
        return load_history(file(tmp_path, sink.getvalue(), "h.parquet")).days

    days = [datetime(2024, 1, d) for d in (1, 2, 3)]
    assert moves(pa.array([d.date() for d in days])) == moves(pa.array(days, pa.timestamp("us"))) == moves(pa.array([20240101, 20240102, 20240103])) == ("2024-01-02", "2024-01-03")
    tokyo = pa.array([int(d.timestamp()) - 9 * 3600 for d in (datetime.fromisoformat(f"2024-01-0{k}T00:00:00+00:00") for k in (1, 2, 3))], pa.timestamp("s", "Asia/Tokyo"))
    assert moves(tokyo) == ("2024-01-02", "2024-01-03")


@pytest.mark.parametrize(("text", "says"), [
    ("date,X\n2024-01-01,1\n2024-01-01,2\n2024-01-02,3\n", "h.csv:3: X: expected one value of 2024-01-01, 1 in h.csv:2, was '2'"),
    ("date,symbol,close\n2024-01-01,X,1\n2024-01-02,X,2\n2024-01-01,X,1.5\n", "h.csv:4: X: expected one value of 2024-01-01, 1 in h.csv:2, was '1.5'"),
    ("date,X\n2024-01-01,\"1,5\"\n2024-01-02,x\n", "h.csv:2: X: expected a number with a decimal point and no commas, was '1,5'\nh.csv:3: X: expected a decimal number, was 'x'"),
    ("date,symbol,colse\n2024-01-01,X,1\n", "close: expected one column of closes"), ("date,symbol,close,Adj Close\n2024-01-01,X,1,1\n", "close: expected one column of closes, was 'close, adj close'"),
    ("date,symbol,close,vlume\n2024-01-01,X,1,1\n2024-01-02,X,1,1\n", "h.csv:1: vlume: expected a column of a history (the nearest is 'volume')"),
    ("date,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n", "h.csv:1: symbol: expected a column symbol"), ("day,X\n2024-01-01,1\n", "h.csv: date: expected a column date"),
    ("date,X\n2024-01-01,1\n", "h.csv: expected at least two days and a symbol, was 1 and 1"), ("date,X\n2024-01-01,inf\n2024-01-02,1\n", "X: expected a decimal number, was 'inf'"),
    ("date,VOL:X\n2024-01-01,0.2\n2024-01-02,0\n", "h.csv:3: VOL:X: expected a volatility above 0, was '0'"), ("date,symbol,close\n2024-01-01,,1\n2024-01-02,X,1\n", "h.csv:2: symbol: expected a text"),
    ("date,X\nmoves,geometric\n2024-01-01,1\n2024-01-02,1\n", "h.csv:2: moves: expected relative or log or absolute, was 'geometric'"),
    ("date,X\nmoves,relative\n2024-01-01,1\n2024-01-02,-1\n", "h.csv:4: X: expected a price above 0 of what has relative moves, was '-1'"),
    ("date,RATE:USD\nmoves,log\n2024-01-01,1\n2024-01-02,1\n", "h.csv:2: moves: expected absolute (RATE:USD is a level), was 'log'"),
    ("date,symbol,close,moves\n2024-01-01,X,1,log\n2024-01-02,X,1,absolute\n", "h.csv:3: moves: expected one type of X, log before, was 'absolute'")])
def test_what_is_no_history_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_moves_are_of_the_type_that_is_stated_or_that_prices_can_have(tmp_path: Path) -> None:
    text = "date,CL,SPREAD,EQ,RATE:USD\nmoves,,absolute,log,\n2020-04-17,18.27,1,100,0.01\n2020-04-20,-37.63,1.5,110,0.02\n2020-04-21,10.01,.,99,0.01\n"
    found = load_history(file(tmp_path, text))
    np.testing.assert_allclose(found.moves, [[-55.9, 0.5, 0.1, 0.01], [47.64, 0.0, -0.1, -0.01]], atol=1e-12)
    assert found.absolute == {"CL", "SPREAD"}
    assert {f["factor"]: f["moves"] for f in examine(load_levels(str(tmp_path / "h.csv")))["factors"]} == {"CL": "absolute", "SPREAD": "absolute", "EQ": "log", "RATE:USD": "absolute"}
    long = "date,symbol,close,moves\n2020-04-17,S,1,absolute\n2020-04-20,S,1.5,\n"
    assert load_history(file(tmp_path, long)).absolute == {"S"}


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 300)))
    days = [date(2024, 1, 1) + timedelta(days=k + (30 if k > 250 else 0)) for k in range(300)]
    split, wrong, holes = prices.copy(), prices.copy(), prices.copy()
    split[150:] /= 2
    wrong[200] *= 1.5
    rows = [f"{d},{s},{w},{'' if 40 <= k < 45 else h},{0 if k == 9 else 1 - k / 100}" for k, (d, s, w, h) in enumerate(zip(days, split, wrong, holes, strict=True))]
    path = file(tmp_path, "date,SPLIT,WRONG,HOLES,SPREAD\n" + "\n".join([*rows, rows[-1]]))
    found = examine(load_levels(path))
    factors = {f["factor"]: f for f in found["factors"]}
    assert [(s["day"], s["like"]) for s in factors["SPLIT"]["splits"]] == [(days[150].isoformat(), "2 for 1")] and factors["SPLIT"]["outliers"] == []
    assert [o["day"] for o in factors["WRONG"]["outliers"] + factors["WRONG"]["splits"]] == [days[200].isoformat(), days[201].isoformat()]
    assert (factors["HOLES"]["missing"], factors["HOLES"]["longest_gap"], factors["SPREAD"]["moves"]) == (5, 5, "absolute")
    assert (factors["SPREAD"]["zeros"], factors["SPREAD"]["below_zero"], found["repeated"], found["gaps"]) == (2, 199, 4, [{"after": days[250].isoformat(), "days": 31}])
    said = "\n".join(findings(load_levels(path)))
    for text in ("looks like a split, 2 for 1", "is far beyond its other moves", "5 days are missing", "1 gaps of more than 6 days", "4 values are said twice", "SPREAD: moves by differences"):
        assert text in said
    monthly = file(tmp_path, "date,X\n2024-01-31,1\n2024-02-29,1.1\n2024-03-31,1.2\n")
    assert "its days are 30 apart" in findings(load_levels(monthly))[0]


def test_real_splits_are_found_and_adjusted_prices_have_none(data: Path) -> None:
    raw = {f["factor"]: f for f in examine(load_levels(str(data / "market" / "daily_equities_unadjusted_lean.parquet")))["factors"]}
    for factor, day, like in (("AAPL", "2014-06-09", "7 for 1"), ("AAPL", "2020-08-31", "4 for 1"), ("BAC", "2004-08-30", "2 for 1"), ("USO", "2020-04-29", "1 for 8"),
                              ("EEM", "2005-06-09", "3 for 1"), ("IBM", "1999-05-27", "2 for 1")):
        assert (day, like) in [(s["day"], s["like"]) for s in raw[factor]["splits"]], factor
    assert raw["QQQ"]["longest_gap"] > 1500 and raw["SPY"]["splits"] == []


def test_the_command_shows_a_history_or_says_why_not(tmp_path: Path) -> None:
    def run(text: str) -> Any:
        return subprocess.run([sys.executable, "-m", "app", "history", file(tmp_path, text), "--json"], cwd=ROOT, capture_output=True, text=True)

    good, bad = run("date,X\n2024-01-01,1\n2024-01-02,2\n"), run("date,X\n01/02/2024,1\n")
    assert good.returncode == 0 and json.loads(good.stdout)["factors"][0]["moves"] == "relative"
    assert bad.returncode == 1 and "h.csv:2: date: expected a date" in bad.stderr and "Traceback" not in bad.stderr

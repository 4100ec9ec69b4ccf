"""Files of quotes, prints and trades: units, zones, identities and every field of a trade are carried or refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console

from app.files.market import Asked, MarketFile, given_columns, read_market
from app.files.refusals import FileRefused
from app.files.symbols import pair_of, symbol_of
from app.files.times import END_S, FIRST_S, UNITS, unit_of, zone_of
from app.replay import Pace, instruments_of, read_files, report_of, stamps
from models.trade_decode import check_trade
from schemas.codec import decoder_of, encode
from schemas.records import Tick, Trade

ROOT = Path(__file__).resolve().parent.parent.parent
T0 = 1_700_000_000
AS_IT_IS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, text: str | bytes, name: str = "XYZ.csv", **asked: Any) -> MarketFile:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_market(path, Asked(**asked), 1)


def refused(folder: Path, text: str | bytes, name: str = "XYZ.csv", **asked: Any) -> str:
    try:
        found = read(folder, text, name, **asked)
    except FileRefused as error:
        return str(error)
    return "\n".join(found.refused)


def ns(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc]


# ---- times ---------------------------------------------------------------------------------------------------------
@AS_IT_IS
@given(st.integers(FIRST_S * 10**9, END_S * 10**9 - 1), st.sampled_from(sorted(UNITS)))
def test_a_number_of_2000_to_2100_has_one_unit(nanos: int, unit: str) -> None:
    number = nanos // UNITS[unit]
    assert unit_of(number) == (unit if number >= FIRST_S * 10**9 // UNITS[unit] else None)


@pytest.mark.parametrize(("unit", "number"), [("s", "1700000000"), ("ms", "1700000000000"), ("us", "1700000000000000"), ("ns", "1700000000000000000"),
                                              ("s", "1700000000.0"), ("ms", "1.7e12")])
def test_units_are_found_by_size_by_name_and_by_option(tmp_path: Path, unit: str, number: str) -> None:
    for head, asked in (("ts", None), (f"ts_{unit}", None), (f"time ({unit})", None), ("ts", unit)):
        assert read(tmp_path, f"{head},bid,ask\n{number},1,2\n", unit=asked).ts.tolist() == [T0 * 10**9]


@pytest.mark.parametrize(("cell", "nanos"), [
    ("2023-11-14T22:13:20Z", T0 * 10**9), ("2023-11-14 22:13:20+00:00", T0 * 10**9), ("2023-11-14T17:13:20.000000001-05:00", T0 * 10**9 + 1),
    ("2023-11-14 22:13:20.295000+00:00", T0 * 10**9 + 295_000_000), ("2023-11-14T22:13Z", (T0 - 20) * 10**9), ("2023-11-14T23:13:20+0100", T0 * 10**9),
    ("2023.11.14 22:13:20Z", T0 * 10**9), ("20231114 22:13:20.500Z", T0 * 10**9 + 500_000_000), ("2023/11/14 22:13Z", (T0 - 20) * 10**9), ("2023-11-14T23:13:20+01", T0 * 10**9), ("2023-11-14 22:13:20 UTC", T0 * 10**9), ("2023-11-14T22:13:20.1000000000000Z", T0 * 10**9 + 10**8)])
def test_text_with_its_zone_is_read(tmp_path: Path, cell: str, nanos: int) -> None:
    found = read(tmp_path, f"ts,bid,ask\n{cell},1,2\n")
    assert (found.ts.tolist(), found.naive) == ([nanos], False)


@pytest.mark.parametrize("cell", ["01/02/2024 10:00:00", "20240102", "2024-01/02 10:00:00", "01.02.2024 00:00:00.000 GMT+0200", "45293.5",
                                  "2024-01-02", "10:00:00", "2024-02-30T10:00:00Z", "2024-01-02T24:01:00Z", "2024-01-02T10:00:60Z", "1999-12-31T23:59:59Z",
                                  "9999-12-31T23:59:59Z", "20240102100000", "0", "-1", "2024-01-02T10:00:00.1234567891Z", "1700000000.1234567891", "soon", "",
                                  "2024-01-02T10:00:00 Europe/Paris", "1e999999"])
def test_other_forms_of_time_are_refused_with_file_line_field_and_value(tmp_path: Path, cell: str) -> None:
    text = refused(tmp_path, f"ts,bid,ask\n{T0},1,2\n{cell},1,2\n")
    assert text.startswith("XYZ.csv:3: ts: expected ") and (repr(cell) in text or not cell) and "\n" not in text


def test_numbers_of_one_file_have_one_unit(tmp_path: Path) -> None:
    text = refused(tmp_path, "ts,bid,ask\n1735603200000,1,2\n1735689600000000,1,2\n")
    assert text == "XYZ.csv:3: ts: expected milliseconds as in XYZ.csv:2, was '1735689600000000' (microseconds)"
    assert "expected a time from 2000 to 2261, was '1700000000000'" in refused(tmp_path, "ts,bid,ask\n1700000000000,1,2\n", unit="ns")
    assert "expected milliseconds as its name says, was --time-unit s" in refused(tmp_path, "ts_ms,bid,ask\n1,1,2\n", unit="s")


def test_times_without_a_zone_are_one_clock_or_need_a_zone(tmp_path: Path) -> None:
    text = "ts,bid,ask\n2024-01-15T10:00:00.5,1,2\n2024-07-15T10:00:00,1,2\n"
    assert read(tmp_path, text).naive
    new_york = read(tmp_path, text, zone=zone_of("America/New_York"))
    assert (new_york.ts.tolist(), new_york.naive) == ([ns(2024, 1, 15, 15) + 500_000_000, ns(2024, 7, 15, 14)], False)
    assert read(tmp_path, text, zone=zone_of("-05:00")).ts.tolist()[1] == ns(2024, 7, 15, 15)
    for hour, day in (("01:30:00", "2024-11-03"), ("02:30:00", "2024-03-10")):  # twice, and never
        assert "America/New_York has once" in refused(tmp_path, f"ts,bid,ask\n{day}T{hour},1,2\n", zone=zone_of("America/New_York"))
    with pytest.raises(ValueError, match="time-zone: expected"):
        zone_of("EST5")
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text(f"ts,bid,ask\n{T0},1,2\n")
    files, silent = [tmp_path / "a.csv", tmp_path / "b.csv"], Console(file=io.StringIO())
    assert read_files(files[:1], Asked(), False, silent)[1] == []
    assert "they are kept" in read_files(files[:1], Asked(), True, silent)[1][0]
    assert "other files name theirs" in read_files(files, Asked(), False, silent)[1][0]


@AS_IT_IS
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=20), st.sampled_from([0.0, 0.5, 1.0, 300.0]))
def test_times_that_are_moved_keep_their_order_and_lie_not_ahead(gaps: list[int], speed: float) -> None:
    ts = np.cumsum(np.array([T0 * 10**9, *gaps], np.int64))
    moved = stamps(ts, Pace(speed), now := ns(2026, 11, 29))
    assert (np.diff(moved) >= 0).all() and stamps(ts, Pace(speed, as_is=True), now) is ts
    assert moved.max() <= now if speed == 0.0 else moved.min() == now


def test_times_ahead_are_refused_where_they_are_kept(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text(f"ts,last\n{T0},1\n{T0 + 10},1\n{T0 + 20},1\n")
    (text,) = read_files([tmp_path / "X.csv"], Asked(), True, Console(file=io.StringIO()), (T0 + 5) * 10**9)[1]
    assert "X.csv: expected times until 2023-11-14T22:13:25.000Z as they are kept, was 2023-11-14T22:13:40.000Z, the latest of 2" in text
    assert read_files([tmp_path / "X.csv"], Asked(), False, Console(file=io.StringIO()), (T0 + 5) * 10**9)[1] == []


def test_times_of_parquet_are_exact_and_bounded(tmp_path: Path) -> None:
    def file(kind: Any, values: list[Any]) -> bytes:
        sink = io.BytesIO()
        parquet.write_table(pa.table({"ts": pa.array(values, kind), "bid": [1.0] * len(values), "ask": [2.0] * len(values)}), sink)
        return sink.getvalue()

    assert read(tmp_path, file(pa.timestamp("ns", "UTC"), [T0 * 10**9 + 1]), "X.parquet").ts.tolist() == [T0 * 10**9 + 1]
    assert read(tmp_path, file(pa.float64(), [1700000000.25]), "X.parquet").ts.tolist() == [T0 * 10**9 + 250_000_000]
    assert "a float of this size has gaps" in refused(tmp_path, file(pa.float64(), [1.7e18]), "X.parquet")
    assert "X.parquet[1]: ts: expected a time from 2000 to 2261" in refused(tmp_path, file(pa.timestamp("s", "UTC"), [253402300799]), "X.parquet")
    assert "X.parquet[2]: ts: expected a time, was empty" in refused(tmp_path, file(pa.timestamp("s", "UTC"), [T0, None]), "X.parquet")


# ---- what is in a row ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["0005", "7203", "NA", "nan", "NULL", "TRUE", "1E5", "00123", "BRK.B", "BTC/USDT", "é"])
def test_identifiers_are_text(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"ts,trade_id,account,symbol,side,size,price,order_id\n{T0},{name},{name},{name},BUY,10,1.5,007\n", "trades.csv")
    (record,) = found.records
    assert (found.refused, record["trade_id"], record["account"], record["instrument"], record["order_id"]) == ([], name, name, name, "007")
    assert decoder_of(Trade).decode(encode(record | {"ts_event": int(found.ts[0])})).instrument == name


def test_every_field_of_a_trade_is_carried(tmp_path: Path) -> None:
    text = ("ts,trade_id,account,symbol,side,size,price,action,ref_trade_id,order_id,trader,counterparty,venue,fees\n"
            f"{T0},t1,A1,X,buy,10,1.5,,,o1,ann,CP,XNYS,1.5:USD 0.001:BNB\n{T0 + 1},t2,A1,X,sell,10,1.5,bust,t1,,,,,\n"
            f"{T0 + 2},f1,A1,X,buy,0,0,funding,,,,,,2:USD\n{T0 + 3},c1,A1,X,buy,9,1.5,correct,t1,,,,,\"[{{\"\"amount\"\": 1.10, \"\"currency\"\": \"\"EUR\"\"}}]\"\n")
    found = read(tmp_path, text, "trades.csv")
    assert found.refused == [] and found.topic == "trades"
    made = [decoder_of(Trade).decode(encode(r | {"ts_event": int(t)})) for r, t in zip(found.records, found.ts, strict=True)]
    assert [(t.action, t.ref_trade_id, t.order_id, t.trader, t.counterparty, t.venue, [(f.amount, f.currency) for f in t.fees or ()]) for t in made] == [
        ("new", None, "o1", "ann", "CP", "XNYS", [(Decimal("1.5"), "USD"), (Decimal("0.001"), "BNB")]), ("bust", "t1", None, None, None, None, []),
        ("funding", None, None, None, None, None, [(Decimal(2), "USD")]), ("correct", "t1", None, None, None, None, [(Decimal("1.10"), "EUR")])]


@pytest.mark.parametrize(("head", "cells", "says"), [
    ("side,size,price", "buy,-10,1.5", "size (quantity): expected a number above 0"), ("side,size,price", "B,10,1.5", "side: expected buy or sell or"),
    ("side,size,price", "buy,\"1,000\",1.5", "size (quantity): expected a number with a decimal point and no commas, was '1,000'"),
    ("side,size,price", "buy,10,NaN", "price: expected a decimal number, was 'NaN'"), ("side,size,price", "buy,,1.5", "quantity): expected a value, was empty"),
    ("side,size,price,action", "buy,10,1.5,bust", "ref_trade_id: expected the trade that the bust is of"), ("side,size,price,action", "buy,10,1.5,cancel", "action: expected new or correct or bust"),
    ("side,size,price,fees", "buy,10,1.5,2 USD", "fees: expected amount:currency"), ("side,size,price,fee", "buy,10,1.5,2", "fee: expected amount:currency"),
    ("side,size,price,fee,fees,fee_currency", "buy,10,1.5,2,2:USD,USD", "fee: expected a column fees or a column fee"),
    ("side,size,price,commission", "buy,10,1.5,2", "commission: expected a field of a tick or trade, or --ignore"),
    ("side,size,price,acton", "buy,10,1.5,bust", "acton: expected a field of a tick or trade, or --ignore (the nearest is 'action')"),
    ("side,size,qty,price", "buy,10,10,1.5", "qty: expected one column of quantity, was size too"), ("side,size,price,bid", "buy,10,1.5,1", "bid: expected a column that trades have a use for"),
    ("side,size,price", f"buy,{'9' * 19},1.5", "size (quantity): expected at most 18 digits"), ("side,size,price", f"buy,{'9' * 40},1.5", "expected a finite number of at most 30 digits")])
def test_what_a_trade_cannot_be_is_refused(tmp_path: Path, head: str, cells: str, says: str) -> None:
    text = refused(tmp_path, f"ts,trade_id,account,symbol,{head}\n{T0},1,A1,X,{cells}\n", "trades.csv")
    assert says in text and text.startswith("trades.csv:"), text


def test_prints_last_and_one_side_a_row(tmp_path: Path) -> None:
    def records(text: str, **asked: Any) -> list[dict[str, Any]]:
        found = read(tmp_path, text, **asked)
        assert found.refused == []
        return [{k: v for k, v in r.items() if k != "source"} for r in found.records]

    assert records(f"ts,symbol,last\n{T0},XYZ,50\n") == [{"instrument": "XYZ", "last": "50"}]
    assert records(f"ts,symbol,price,size\n{T0},XYZ,50.10,5\n") == [{"instrument": "XYZ", "last": "50.10"}]
    assert records(f"ts,symbol,price,size,side,trade_id\n{T0},XYZ,50,5,buy,7\n") == [{"instrument": "XYZ", "last": "50"}]
    assert records(f"ts,symbol,side,price,size\n{T0},XYZ,bid,50,5\n{T0},XYZ,ASK,51,6\n") == [
        {"instrument": "XYZ", "bid": "50", "bid_size": "5"}, {"instrument": "XYZ", "ask": "51", "ask_size": "6"}]
    assert records(f"ts,bid,ask\n{T0},,1.2\n{T0},NaN,1.2\n") == [{"instrument": "XYZ", "ask": "1.2"}] * 2
    assert records(f"timestamp,askPrice,bidPrice\n{T0},2,1\n") == [{"instrument": "XYZ", "bid": "1", "ask": "2"}]
    assert records(f"when,Kurs\n{T0},5\n", columns=given_columns(["when=ts_event", "Kurs=last"])) == [{"instrument": "XYZ", "last": "5"}]
    bars = f"ts,open,high,low,close\n{T0},1,2,1,1.5\n"
    assert "expected ticks, was bars" in refused(tmp_path, bars)
    assert (read(tmp_path, bars, bar_s=60.0).ts.tolist(), records(bars, bar_s=60.0)) == ([(T0 + 60) * 10**9], [{"instrument": "XYZ", "last": "1.5"}])


@pytest.mark.parametrize(("text", "says"), [
    (f"ts,symbol,side,price\n{T0},X,bid,1\n{T0},X,buy,1\n", "XYZ.csv:2: side: expected bid and ask (quotes), or buy and sell (prints), or --ignore, was 'bid'"),
    (f"ts,symbol,side,price\n{T0},X,bid,1\n{T0},X,,1\n", "XYZ.csv:3: side: expected bid or ask, was ''"), (f"ts,symbol,side,price\n{T0},X,A,1\n", "was 'A'"), (f"ts,bid,ask\n{T0},,\n", "XYZ.csv:2: bid: expected a price, was empty"),
    (f"ts,symbol,bid,ask\n{T0},,1,2\n", "XYZ.csv:2: symbol (instrument): expected a value, was empty"), (f"ts,bid,ask\n{T0},\"1,1\",2\n", "no commas, was '1,1'"),
    (f"ts,bid,ask\n{T0},inf,2\n", "bid: expected a decimal number, was 'inf'"), (f"ts,bid,ask,price\n{T0},1,2,3\n", "price: expected a column that quotes have a use for"),
    (f"ts,last,price\n{T0},1,2\n", "price: expected last or price, was both"), (f"ts,price,order_id\n{T0},1,2\n", "account: expected a column account beside order_id"),
    (f"ts,timestamp,bid,ask\n{T0},{T0},1,2\n", "timestamp: expected one column of ts_event, was ts too"), ("symbol,bid,ask\nX,1,2\n", "ts_event: expected a column ts_event"),
    (f"ts,symbol\n{T0},X\n", "expected bid and ask, last, price and size"), ("ts,bid,ask\n", "XYZ.csv: expected records, found none"),
    (f"ts,bid,ask,suspicious\n{T0},1,2,maybe\n", "suspicious: expected true or false, was 'maybe'"), (f"ts,symbol,bid,ask\n{T0},{'X' * 129},1,2\n", "expected at most 128 characters"),
    ("1700000000000,1.1,1.2\n", "expected names of columns"), (f"ts,symbol,side,price,amount,is_snapshot\n{T0},X,bid,1,2,true\n", "is_snapshot: expected a field")])
def test_rows_that_are_no_ticks_are_refused(tmp_path: Path, text: str, says: str) -> None:
    found = refused(tmp_path, text)
    assert says in found, found


def test_a_suspicious_row_is_left_out_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, f"ts,price,suspicious\n{T0},1,false\n{T0},1000,true\n")
    assert (len(found.records), found.left_out, found.refused) == (1, {"suspicious": 1}, [])
    assert report_of([found], [])["files"][0]["left_out"] == {"suspicious": 1}


def test_whole_numbers_of_parquet_and_json_are_ids_and_accounts_but_no_tickers(tmp_path: Path) -> None:
    sink = io.BytesIO()
    columns = {"ts": [T0], "trade_id": [17], "account": [123], "symbol": ["X"], "side": ["buy"], "size": [10.0], "price": [1.5]}
    parquet.write_table(pa.table(columns), sink)
    (record,) = read(tmp_path, sink.getvalue(), "t.parquet").records
    assert (record["trade_id"], record["account"]) == ("17", "123")
    text = json.dumps({k: v[0] for k, v in columns.items()} | {"symbol": 700})
    assert "t.jsonl:1: symbol (instrument): expected text (a number may have lost zeros in front), was int '700'" in refused(tmp_path, text, "t.jsonl")
    fees = refused(tmp_path, f"ts,trade_id,account,symbol,side,size,price,fees\n{T0},1,A,X,buy,1,1,2:usd\n", "t.csv")
    assert fees == "t.csv:2: fees.currency: expected a code of 2 to 12 capital letters and digits, was 'usd'"


# ---- names ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "symbol"), [
    ("quotes_AAPL.csv", "AAPL"), ("trades_btcusdt.csv", "BTCUSDT"), ("XYZ.csv", "XYZ"), ("fx_ticks_eurusd_histdata_2020-01-01.csv.gz", "EURUSD"),
    ("crypto_binance_btcusdt_perp_quotes_2023-12-01.parquet", "BTCUSDT-PERP"), ("BTCUSDT-aggTrades-2023-05.csv", "BTCUSDT"), ("quotes.csv", None),
    ("AAPL_MSFT.csv", None), ("ticks_2024-01-02.csv", None), ("equity_ticks_ibm_trades_2013-10-08.parquet", "IBM"), ("quotes_0700.csv", None)])
def test_the_name_of_a_file_says_one_instrument_or_it_is_asked_for(tmp_path: Path, name: str, symbol: str | None) -> None:
    assert symbol_of(Path(name)) == symbol
    text = f"ts,bid,ask\n{T0},1,2\n"
    if not name.endswith(".csv"):
        return
    if symbol is None:
        assert "--symbol" in refused(tmp_path, text, name)
        assert read(tmp_path, text, name, symbol="0700").records[0]["instrument"] == "0700"
    else:
        assert read(tmp_path, text, name).records[0]["instrument"] == symbol
    assert "was both" in refused(tmp_path, f"ts,symbol,bid,ask\n{T0},X,1,2\n", name, symbol="Y")


def test_pairs_are_of_known_currencies() -> None:
    found = {name: pair_of(name) for name in ("EURUSD", "BTCUSDT", "BTC/USDT", "EUR.USD", "QUOTES", "GOOGLE", "AAPL", "USD", "ARBUSD", "PEPE/USDT", "XAUUSD", "BRK.B")}
    assert found == {"EURUSD": ("EUR", "USD"), "BTCUSDT": ("BTC", "USDT"), "BTC/USDT": ("BTC", "USDT"), "EUR.USD": ("EUR", "USD"), "QUOTES": None, "GOOGLE": None,
                     "AAPL": None, "USD": None, "ARBUSD": ("ARB", "USD"), "PEPE/USDT": ("PEPE", "USDT"), "XAUUSD": ("XAU", "USD"), "BRK.B": None}


def test_instruments_count_in_the_decimals_of_their_records(tmp_path: Path) -> None:
    text = f"ts,trade_id,account,symbol,side,size,price\n{T0},1,A,BTCUSDT,buy,0.000263,39432.48\n{T0},2,A,XYZ,buy,5,1.1234567\n"
    btc, xyz = instruments_of([read(tmp_path, text, "trades.csv")])
    assert (btc.asset_class, btc.currency, btc.quantity_increment, btc.price_increment) == ("fx", "USDT", Decimal("0.000001"), Decimal("0.00001"))
    assert (xyz.asset_class, xyz.currency, xyz.quantity_increment, xyz.price_increment) == ("equity", "USD", Decimal("0.01"), Decimal("1E-7"))


# ---- the command ---------------------------------------------------------------------------------------------------
def test_a_check_says_all_that_is_wrong_and_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"ts,symbol,bid,ask\n{T0},X,1,2\n{T0},X,\"1,5\",2\nsoon,X,1,2\n")
    (tmp_path / "b.csv").write_text(f"ts,symbol,bid,asc\n{T0},X,1,2\n")
    done = subprocess.run([sys.executable, "-m", "app", "replay", "--check", "a.csv", "b.csv"], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for text in ("a.csv:3: bid: expected a number with a decimal point and no commas, was '1,5'", "a.csv:4: ts: expected a time", "b.csv:1: asc: expected a field"):
        assert text in done.stderr
    report = json.loads(done.stdout)
    assert (report["published"], report["refused"], report["files"][0]["records"]) == (False, 3, 1)


# ---- real files ----------------------------------------------------------------------------------------------------
#: files of ticks and trades, what they need beside their content, and how many records they hold
REAL = {
    "crypto_binance_btcusdt_perp_quotes_2023-12-01.parquet": ({}, 15_000), "crypto_binance_btcusdt_quotes_2021-01-08.parquet": ({}, 451),
    "crypto_binance_btcusdt_trades_2021-01-08.parquet": ({}, 2_001), "crypto_coinbase_minute_2018-04-04_05.parquet": ({}, 11_500),
    "crypto_perpetuals_minute_2022-12-13.parquet": ({}, 3_128), "equity_ticks_ibm_quotes_2013-10-08.parquet": ({}, 125_749),
    "equity_ticks_ibm_trades_2013-10-08.parquet": ({}, 33_381), "fx_ticks_eurusd_histdata_2020-01-01.csv.gz": ({"zone": zone_of("-05:00")}, 9_500),
    "fx_ticks_fxcm_2014-05-08.parquet": ({}, 280_839), "fx_ticks_oanda_2014-05-08.parquet": ({}, 137_707), "fx_ticks_usdjpy_truefx_2013-01-01.csv.gz": ({}, 1_000),
    "crypto_btcperp_m1_2022-01.parquet": ({"bar_s": 60.0}, 45_031), "fx_m1_gbpusd_2012-02.parquet": ({"bar_s": 60.0}, 30_117), "fx_m1_usdjpy_2013-02.parquet": ({"bar_s": 60.0}, 28_761)}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_replay_without_a_wrong_row(data: Path, name: str) -> None:
    asked, count = REAL[name]
    found = read_market(data / "market" / name, Asked(**asked), 1)
    assert (found.refused, len(found.records), found.naive) == ([], count, False)
    for i in range(0, count, max(count // 500, 1)):  # what readers of the topic make of it
        raw = encode(found.records[i] | {"ts_event": int(found.ts[i])})
        if found.topic == "trades":
            check_trade(decoder_of(Trade).decode(raw))
        else:
            tick = decoder_of(Tick).decode(raw)
            assert tick.last is not None or tick.bid is not None or tick.ask is not None

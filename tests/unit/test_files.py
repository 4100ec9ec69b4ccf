"""Files are read by explicit rules: text stays text in every format, and every refusal has file, line, field and value."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.control import Refused
from app.files.reading import Naive, Utc, read_table
from app.files.refusals import FileRefused
from app.limit_files import read_limits
from app.reference_files import read_folder
from schemas.records import Instrument

ACCOUNTS = "account,book,desk,strategy,fund\nA,B,D,S,F\n"
HEAD = "instrument,asset_class,currency"


def table_of(folder: Path, name: str, raw: bytes | str) -> Any:
    path = folder / name
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return read_table(path)


def loaded(folder: Path, name: str, raw: bytes | str) -> list[Instrument]:
    (folder / "accounts.csv").write_text(ACCOUNTS)
    (folder / name).write_bytes(raw.encode() if isinstance(raw, str) else raw)
    try:
        return read_folder(folder)[0]
    finally:
        (folder / name).unlink()


def refused(folder: Path, name: str, raw: bytes | str) -> list[str]:
    with pytest.raises(FileRefused) as error:
        loaded(folder, name, raw)
    return error.value.problems


def as_yaml(rows: list[dict[str, str]], plain: bool) -> str:
    if plain:  # as people write it
        return "".join("- {" + ", ".join(f"{k}: {v}" for k, v in row.items()) + "}\n" for row in rows)
    return yaml.safe_dump(rows, allow_unicode=True)


def written(rows: list[dict[str, str]], kind: str) -> bytes:
    if kind in ("csv", "utf-8-sig", "utf-16", "semicolon"):
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), delimiter=";" if kind == "semicolon" else ",")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode(kind if kind.startswith("utf") else "utf-8")
    if kind == "parquet":
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if kind in ("yaml", "plain"):
        return as_yaml(rows, kind == "plain").encode()
    return (json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))).encode()


ENDS = {"csv": "csv", "utf-8-sig": "csv", "utf-16": "csv", "semicolon": "csv", "parquet": "parquet", "yaml": "yaml", "plain": "yml",
        "json": "json", "jsonl": "jsonl"}
#: what somebody's YAML, CSV or spreadsheet takes for something else
NAMES = ["0700", "000123", "0005", "7203", "NO", "ON", "OFF", "yes", "NA", "NaN", "nan", "None", "TRUE", "1e5", "1_000", "12:30", "0x1F", "0o17", "0b1",
         "2027-01-15", "=", "<<", "1.0", "-5", ".inf", "BRK.B", "BTC/USDT", "Müller", "腾讯", "007", "+1"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True), st.sampled_from(["1", "0.1", "1000000.25", "5e-5"]), st.data())
def test_a_record_is_the_same_whatever_file_it_comes_from(tmp_path: Path, names: list[str], multiplier: str, data: st.DataObject) -> None:
    rows = [{"instrument": n, "asset_class": "equity", "currency": "HKD", "multiplier": multiplier, "issuer": n, "restricted": "true"} for n in names]
    want = [Instrument(instrument=n, asset_class="equity", currency="HKD", multiplier=Decimal(multiplier), issuer=n, restricted=True) for n in names]
    for kind in data.draw(st.lists(st.sampled_from(list(ENDS)), min_size=3, max_size=3, unique=True)):
        assert loaded(tmp_path, f"instruments.{ENDS[kind]}", written(rows, kind)) == want, kind


def test_what_is_missing_is_missing_and_what_is_quoted_is_text(tmp_path: Path) -> None:
    text = "- {instrument: X, asset_class: equity, currency: USD, issuer: null, sector: ~, country: }\n- {instrument: 'null', asset_class: equity, currency: USD}\n"
    first, second = loaded(tmp_path, "instruments.yaml", text)
    assert (first.issuer, first.sector, first.country, second.instrument) == (None, None, None, "null")


@pytest.mark.parametrize(("name", "raw", "says"), [
    ("instruments.csv", f"{HEAD},multiplyer\nES,future,USD,50\n", ["instruments.csv:1: multiplyer: expected a field of Instrument (the nearest is 'multiplier'), was 'multiplyer'"]),
    ("instruments.yaml", "- instrument: X\n  asset_class: equity\n  curency: USD\n", [
        "instruments.yaml:3: curency: expected a field of Instrument (the nearest is 'currency'), was 'curency'", "instruments.yaml:1: currency: expected a value, was empty"]),
    ("instruments.csv", f"{HEAD},multiplier,strike,coupon\nX,share,usd,\"1,5\",many,1.000.000\n", [
        "instruments.csv:2: asset_class: expected equity", "instruments.csv:2: currency: expected a code of 2 to 12 capital letters and digits, was 'usd'",
        "instruments.csv:2: multiplier: expected a number with a decimal point and no commas, was '1,5'", "instruments.csv:2: strike: expected a decimal number, was 'many'",
        "instruments.csv:2: coupon: expected a decimal number, was '1.000.000'"]),
    ("instruments.csv", f"{HEAD}\nX,equity,USD\nY,equity\nZ,equity,USD,1\n", [
        "instruments.csv:3: expected 3 cells as its head has, was 2: 'Y,equity'", "instruments.csv:4: expected 3 cells as its head has, was 4: 'Z,equity,USD,1'"]),
    ("instruments.csv", f"{HEAD},currency\nX,equity,USD,EUR\n", ["instruments.csv:1: currency: expected each column once"]),
    ("instruments.csv", f"{HEAD}\n", ["instruments.csv: expected records, found none"]),
    ("instruments.csv", "", ["instruments.csv: expected records, found none"]),
    ("instruments.csv", "X,equity;USD\n", ["instruments.csv:1: expected names of columns with one separator"]),
    ("instruments.csv", "1,2.5,2024-01-01\n", ["instruments.csv:1: expected names of columns, was '1,2.5,2024-01-01'"]),
    ("instruments.csv", f"{HEAD},\nX,equity,USD,5\n", ["instruments.csv:2: expected a column with a name, was '5' in column 4 without one"]),
    ("instruments.csv", f"{HEAD},restricted,settlement_days\nX,equity,USD,yes,2.5\n", [
        "instruments.csv:2: settlement_days: expected a whole number, was '2.5'", "instruments.csv:2: restricted: expected true or false, was 'yes'"]),
    ("instruments.csv", f"{HEAD},margin_tiers\nX,equity,USD,5:1:1:9\n", ["instruments.csv:2: margin_tiers: expected up_to:initial:maintenance, a space between tiers, was '5:1:1:9'"]),
    ("instruments.yaml", "- {instrument: X, instrument: Y}\n- {instrument: !!int 5}\n- {instrument: Z, asset_class: equity, currency: USD, multiplier: 0}\n", [
        "instruments.yaml:1: instrument: expected each field once, was there twice", "instruments.yaml:2: expected plain values, was the tag",
        "instruments.yaml:3: multiplier: expected a number above 0, was '0'"]),
    ("instruments.jsonl", '{"instrument": 700, "asset_class": "equity", "currency": "HKD"}\n{"instrument": "Y"\n[1]\n{"instrument": "X", "instrument": "Y"}\n', [
        "instruments.jsonl:2: expected JSON that can be read", "instruments.jsonl:3: expected a record of fields", "instruments.jsonl:4: expected JSON that can be read: instrument: expected each field once",
        "instruments.jsonl:1: instrument: expected text (a number may have lost zeros in front), was int '700'"]),
    ("instruments.csv", f"{HEAD},strike,coupon,style\nX,equity,USD,5,,european\nY,future,USD,,4,\nO,option,USD,,,american\n", [
        "instruments.csv:2: strike: expected nothing of class equity, was '5'", "instruments.csv:2: style: expected nothing of class equity, was 'european'",
        "instruments.csv:3: coupon: expected nothing of class future, was '4'", "instruments.csv:4: underlying: expected a value for class option, was empty",
        "instruments.csv:4: strike: expected a value for class option, was empty"]),
    ("instruments.csv", f"{HEAD},underlying,right,strike,expiry,style,barrier_kind\nO,option,USD,X,call,5,2027-01-15,american,up_and_out\n", [
        "instruments.csv:2: barrier_kind: expected terms that are whole"]),
    ("instruments.csv", f"{HEAD},price_increment,quantity_increment,prior_close,prior_close_date,calendar,inverse,adv\nX,equity,USD,0,-1,-5,02/01/2024,,true,0\nA|B,equity,USD,,,,,,,\n"
     "Y,equity,USD,,,,,MARS,,\nZ,future,USD,,,-5,2024-01-02,,true,\nV,fx,USD,,,1,,,false,\n", [
        "instruments.csv:2: prior_close_date: expected a date as 2027-01-15", "instruments.csv:3: instrument: expected no bar in a name", "instruments.csv:4: calendar: expected some of"]),
    ("instruments.csv", f"{HEAD},price_increment,quantity_increment,prior_close,inverse,adv\nX,equity,USD,0,-1,-5,true,0\nZ,future,USD,,,-5,true,\nV,fx,USD,,,1,false,\n", [
        "instruments.csv:2: inverse: expected nothing of class equity", "instruments.csv:2: price_increment: expected a number above 0, was '0'",
        "instruments.csv:2: quantity_increment: expected a number above 0, was '-1'", "instruments.csv:2: adv: expected a number above 0", "instruments.csv:2: prior_close: expected a price of class inverse equity, 0 or more"]),
    ("accounts-2.csv", "account,book,desk,strategy,fund,traders,nav\nB,B,D,S,F,\"ann, bob\",\"1,000\"\n", [
        "accounts-2.csv:2: traders: expected names with spaces between them, was 'ann, bob'", "accounts-2.csv:2: nav: expected a number with a decimal point and no commas, was '1,000'"]),
    ("instrument.csv", f"{HEAD}\nX,equity,USD\n", ["instrument.csv: expected a file instruments", "expected a file instruments.csv, .yaml, .jsonl or .parquet, found none"]),
    ("instruments.xlsx", "PK", ["instruments.xlsx: expected a file instruments that ends in .csv"]),
    ("instruments.csv.gz", b"no gzip", ["instruments.csv.gz: expected a file that can be read"]),
])
def test_every_refusal_of_a_file_is_said_at_once(tmp_path: Path, name: str, raw: bytes | str, says: list[str]) -> None:
    problems = "\n".join(refused(tmp_path, name, raw))
    assert all(s in problems for s in says), problems
    assert len(problems.split("\n")) >= len(says)


def test_lines_are_those_of_the_file_whatever_a_cell_holds(tmp_path: Path) -> None:
    text = f'{HEAD},issuer\nX,equity,USD,"a\nb"\n\nY,equity,USD,#N/A\nZ,equity,USD,a\u200bb\n1.23457E+11,equity,USD,\n'
    problems = refused(tmp_path, "instruments.csv", text)
    assert [p.split(": expected")[0] for p in problems] == ["instruments.csv:5: issuer", "instruments.csv:6: issuer", "instruments.csv:7: instrument"]
    sep = refused(tmp_path, "instruments.csv", "sep=;\n" + "instrument;asset_class;currency\nX;equity;usd\n")
    assert sep == ["instruments.csv:3: currency: expected a code of 2 to 12 capital letters and digits, was 'usd'"]


def test_parquet_cells_are_exact_and_nothing_is_taken_from_folders(tmp_path: Path) -> None:
    folder = tmp_path / "symbol=0700"
    folder.mkdir()
    made = pa.table({"narrow": pa.array([1.1, float("nan")], pa.float32()), "wide": [0.1, float("nan")], "text": pa.array(["0700", "  "]).dictionary_encode(),
                     "zoned": pa.array([datetime(2024, 1, 2), None], pa.timestamp("us", "America/New_York")), "bare": pa.array([253402300799, 1], pa.timestamp("s")),
                     "day": [date(2024, 1, 2), None], "money": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2))})
    parquet.write_table(made, folder / "x.parquet")
    columns = read_table(folder / "x.parquet").columns
    assert columns == {"narrow": [Decimal("1.1"), None], "wide": [0.1, None], "text": ["0700", None], "zoned": [1704153600000000000, None],
                       "bare": [253402300799 * 10**9, 10**9], "day": [date(2024, 1, 2), None], "money": [Decimal("1.10"), None]}
    assert isinstance(columns["zoned"][0], Utc) and isinstance(columns["bare"][0], Naive)


def test_formulas_of_spreadsheets_are_refused_and_blank_lines_before_the_head_are_none(tmp_path: Path) -> None:
    text = refused(tmp_path, "instruments.csv", f'\n\n{HEAD},issuer\n"=""0700""",equity,HKD,\'0005\n'.replace(",", ";"))
    assert [t.split(", was")[0] for t in text] == ["instruments.csv:4: instrument: expected a value, not an error or a formula of a spreadsheet",
                                                   "instruments.csv:4: issuer: expected a value, not an error or a formula of a spreadsheet",
                                                   "instruments.csv:4: instrument: expected a value"][:len(text)] and len(text) >= 2


def test_parquet_cells_that_are_none_are_refused_by_row_and_column(tmp_path: Path) -> None:
    for values, kind in ((pa.array([b"X", b"M\xfcller"]).view(pa.string()), "utf-8"), (pa.array([1, 2**31 - 1], pa.int32()).view(pa.date32()), "")):
        sink = io.BytesIO()
        parquet.write_table(pa.table({"instrument": values}), sink)
        (problem,) = refused(tmp_path, "instruments.parquet", sink.getvalue())
        assert problem.startswith("instruments.parquet[2]: instrument: expected a value that can be read") and kind in problem


def test_gzipped_files_and_old_line_ends_are_read(tmp_path: Path) -> None:
    assert table_of(tmp_path, "a.csv.gz", gzip.compress(b"x,y\n1,2\n")).columns == {"x": ["1"], "y": ["2"]}
    assert table_of(tmp_path, "a.csv", b"x,y\r1,2\r").columns == {"x": ["1"], "y": ["2"]}


def test_limits_are_refused_with_file_line_field_and_value(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("- limit_id: G\n  node: firm\n  metric: gross\n  limit: '10,5'\n  mod: soft\n- {limit_id: H, node: firm, metric: net, limit: 5, window_ms: soon, warn: high}\n")
    with pytest.raises(Refused) as error:
        read_limits(path, "as agreed today")
    for text in ("limits.yaml:5: mod: expected a field of a limit (the nearest is 'mode')", "limits.yaml:4: limit: expected a number with a decimal point and no commas, was '10,5'",
                 "limits.yaml:6: window_ms: expected a whole number, was 'soon'", "limits.yaml:6: warn: expected a decimal number, was 'high'"):
        assert text in str(error.value)
    path.write_text("[]\n")
    with pytest.raises(Refused, match="expected limits, found none"):
        read_limits(path, None)

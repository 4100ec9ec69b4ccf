"""Reference files that cannot be read, or hold what cannot be counted with: refused with file, line, field and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.files.refusals import FileRefused
from app.reference_files import read_folder

ACCOUNTS = "account,book,desk,strategy,fund\nA,B,D,S,F\n"
OPTION = "instrument,asset_class,currency,underlying,right,strike,style,expiry\nX,equity,USD,,,,,\nO,option,USD,X,call,100,european,{}\n"


def refused(folder: Path, name: str, raw: bytes) -> str:
    (folder / "accounts.csv").write_text(ACCOUNTS)
    (folder / name).write_bytes(raw)
    with pytest.raises(FileRefused) as error:
        read_folder(folder)
    return str(error.value)


@pytest.mark.parametrize("expiry", ["9999-12-31", "2027-01", "JAN27", "20250915 10:00:00 GB", "2027-01-15 16:00:00", "15/01/2027", "2027-02-30",
                                    "0001-01-01", "2027-01-15T16:00", "２０２７-01-15"])
def test_an_expiry_that_is_no_date_is_refused_with_its_line(tmp_path: Path, expiry: str) -> None:
    text = refused(tmp_path, "instruments.csv", OPTION.format(expiry).encode())
    assert text.startswith("instruments.csv:3: expiry: expected a date") and repr(expiry) in text and "\n" not in text


@pytest.mark.parametrize("expiry", ["2027-01-15", "2027-01-15T16:00:00Z", "2027-01-15T16:00:00-05:00"])
def test_dates_and_times_with_a_zone_are_read(tmp_path: Path, expiry: str) -> None:
    (tmp_path / "accounts.csv").write_text(ACCOUNTS)
    (tmp_path / "instruments.csv").write_text(OPTION.format(expiry))
    assert read_folder(tmp_path)[0][1].expiry == expiry


@pytest.mark.parametrize(("name", "raw", "says"), [
    ("instruments.yaml", b"- {instrument: X", "instruments.yaml:1: expected YAML"),
    ("instruments.yaml", b"- {instrument: X, asset_class: equity, currency: USD}\n- X\n", "instruments.yaml:2: expected a record of fields"),
    ("instruments.yaml", b"X", "instruments.yaml: expected a list of records"),
    ("instruments.yaml", b"- {instrument: X, asset_class: equity, currency: USD, expiry: 2027-02-30}", "instruments.yaml:1: expiry: expected a date"),
    ("instruments.yaml", b"- {1: X}", "instruments.yaml:1: 1: expected a field of Instrument"),
    ("instruments.yaml", b"- {[1]: X}", "instruments.yaml:1: expected a record of fields"),
    ("instruments.yaml", b"[" * 1000, "instruments.yaml"),
    ("instruments.csv", "instrument,asset_class,currency,issuer\nX,equity,USD,Müller\n".encode("latin-1"), "instruments.csv:2: issuer: expected UTF-8 (or UTF-16 with a byte-order mark), was byte 0xfc in b'M\\xfcller'"),
    ("instruments.csv", b"\xff\xfei\x00\xff", "instruments.csv: expected UTF-16 as its byte-order mark says"),
    ("instruments.csv", "instrument,asset_class,currency\nX,equity,USD\n".encode("utf-16-le"), "instruments.csv:1: expected UTF-8, or UTF-16 with a byte-order mark"),
    ("instruments.parquet", b"no parquet", "instruments.parquet: expected parquet that can be read"),
    ("instruments.csv", b'instrument,asset_class,currency\n"X,equity,USD\n', "instruments.csv"),
    ("instruments.csv", b"instrument,asset_class,currency,multiplier\nX,equity,USD,1_0\n", "instruments.csv:2: multiplier: expected a decimal number, was '1_0'"),
    ("instruments.csv", b"instrument,asset_class,currency,multiplier\nX,equity,USD,0\n", "instruments.csv:2: multiplier: expected"),
    ("instruments.csv", b"instrument,asset_class,currency\nX,stock,USD\n", "instruments.csv:2: asset_class: expected equity or bond or fx"),
    ("instruments.csv", b"instrument,asset_class,currency,coupon,maturity\nX,bond,USD,4,30/06/2031\n", "instruments.csv:2: maturity: expected a date"),
    ("instruments.yaml", b"- {instrument: X, asset_class: equity, currency: USD, margin_tiers: [1, x]}", "instruments.yaml:1: "),
    ("instruments.yaml", b"- {instrument: X, asset_class: equity, currency: USD, multiplier: 1e999999}", "instruments.yaml:1: "),
])
def test_a_file_that_cannot_be_read_is_refused_by_name_and_line(tmp_path: Path, name: str, raw: bytes, says: str) -> None:
    assert says in refused(tmp_path, name, raw)

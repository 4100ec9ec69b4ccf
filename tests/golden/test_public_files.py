"""Files as public bug reports describe them: each is read right, or refused with what is wrong (`docs/field-log.md`)."""

from __future__ import annotations

import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from app.files.market import Asked, read_market
from app.files.refusals import FileRefused
from app.files.times import zone_of
from app.history import HistoryError, load_history, load_levels
from app.history_report import findings
from app.reference_files import read_folder
from schemas.units import parse_ts_ns

CASES = yaml.safe_load((Path(__file__).resolve().parent.parent / "tables" / "public_files.yaml").read_text())
ACCOUNTS = "account,book,desk,strategy,fund\nA,B,D,S,F\n"
INSTRUMENTS = "instrument,asset_class,currency\nX,equity,USD\n"


def raw_of(case: dict[str, Any]) -> bytes:
    """Return the bytes of a case's file."""
    if "parquet" in case:
        columns = {}
        for name, (kind, *values) in case["parquet"].items():
            columns[name] = pa.array(values, pa.timestamp(kind[1], kind[2]) if kind[0] == "timestamp" else pa.float64())
        sink = io.BytesIO()
        parquet.write_table(pa.table(columns), sink)
        return sink.getvalue()
    if "series" in case:
        values, name = case["series"]
        rows = [f"{date(2024, 1, 1) + timedelta(days=k)},{v}" for k, v in enumerate(values)]
        return "\n".join([f"date,{name}", *rows]).encode()
    text = case["text"] % (case["repeat"][0] * case["repeat"][1]) if "repeat" in case else case["text"]
    return text.encode("latin-1" if case.get("latin1") else "utf-8")


def seen(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a file was read as, in the words of a case."""
    path = folder / case["name"]
    path.write_bytes(raw_of(case))
    try:
        if case["as"] == "history":
            history = load_history(str(path))
            moves = {n: history.moves[:, k].tolist() for k, n in enumerate(history.factors)}
            return {"moves": moves, "days": list(history.days), "odd": findings(load_levels(str(path)))}
        if case["as"] in ("reference", "accounts"):
            other = ("accounts.csv", ACCOUNTS) if case["as"] == "reference" else ("instruments.csv", INSTRUMENTS)
            (folder / other[0]).write_text(other[1])
            return {"loads": read_folder(folder)[0 if case["as"] == "reference" else 1][0]}
        options = dict(case.get("options") or {})
        if "zone" in options:
            options["zone"] = zone_of(options["zone"])
        if "ignore" in options:
            options["ignore"] = frozenset(options["ignore"])
        found = read_market(path, Asked(**options), 1)
    except (FileRefused, HistoryError) as error:
        return {"refused": str(error)}
    if found.refused:
        return {"refused": "\n".join(found.refused)}
    return {"records": found.records, "times": found.ts.tolist(), "naive": found.naive}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["case"])
def test_a_file_of_the_field_is_read_right_or_refused(tmp_path: Path, case: dict[str, Any]) -> None:
    found, right = seen(case, tmp_path), case["right"]
    if "refused" in right:
        assert all(text in found.get("refused", "") for text in right["refused"]), found
        return
    assert "refused" not in found, found
    for record, wanted in zip(found.get("records", []), right.get("records", []), strict=False):
        assert {k: record.get(k) for k in wanted} == wanted
    if "times" in right:
        assert found["times"] == [parse_ts_ns(t) for t in right["times"]]
    if "records" in right:
        assert len(found["records"]) >= len(right["records"]) and found["naive"] == right.get("naive", False)
    for name, moves in right.get("moves", {}).items():
        assert found["moves"][name] == pytest.approx(moves)
    if "days" in right:
        assert found["days"] == right["days"]
    for name, value in right.get("loads", {}).items():
        assert getattr(found["loads"], name) == value
    for text in right.get("odd", []):
        assert any(text in line for line in found["odd"]), found["odd"]

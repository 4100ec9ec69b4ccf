"""Files of any bytes are read, or refused with the file: no reader raises anything else, and nothing wrong comes through."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.control import Refused
from app.files.market import Asked, read_market
from app.files.refusals import FileRefused
from app.history import HistoryError, load_history
from app.history_report import examine, findings
from app.limit_files import read_limits
from app.reference_files import read_folder
from models.trade_decode import check_trade
from schemas.codec import decoder_of, encode
from schemas.records import Tick, Trade
from tests.support.examples import scaled

ROWS: dict[str, list[dict[str, Any]]] = {
    "instruments": [{"instrument": "0700", "asset_class": "equity", "currency": "HKD", "multiplier": "1.5", "issuer": "A"},
                    {"instrument": "O", "asset_class": "option", "currency": "USD", "underlying": "X", "right": "call", "strike": "5", "expiry": "2027-01-15"}],
    "limits": [{"limit_id": "G", "node": "firm", "metric": "gross", "limit": "10", "warn": "0.8", "window_ms": "5"}],
    "h": [{"date": "2024-01-01", "symbol": "X", "close": "5"}, {"date": "2024-01-02", "symbol": "X", "close": "6"}],
    "fills": [{"ts": "1700000000", "trade_id": "1", "account": "A", "symbol": "X", "side": "buy", "size": "5", "price": "2", "fees": "1:USD"}],
    "ticks": [{"ts": "2024-01-01T00:00:00Z", "symbol": "X", "bid": "5", "ask": "6"}]}
ODD = st.sampled_from(["", " ", "NaN", "nan", "null", "inf", "-0", "1e400", "1e-400", "9" * 40, "1_0", "0x1", "true", "2024-02-30", "9999-12-31", "1" * 5000, "\x00", "é", "\ufeff",
                       "[", "{", "- x", "!!python/object:x", "&a [*a]", "*a", "#N/A", "'", '"', "\r", "a:b:c", "1:USD", "[{}]", '[{"amount": null}]', "-5", "0", "1e19", "٣"])


def written(rows: list[dict[str, Any]], kind: str) -> bytes:
    """Return rows as a file of a kind, without care for what is in them."""
    if kind == "csv":
        return "\n".join([",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]).encode("utf-8", "surrogatepass")
    if kind == "yaml":
        return "".join("- {" + ", ".join(f"{k}: {v}" for k, v in r.items()) + "}\n" for r in rows).encode("utf-8", "surrogatepass")
    if kind == "parquet":
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    return (json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))).encode()


def read(folder: Path, what: str, name: str) -> None:
    """Read a file as its kind of command does; what comes through is what readers of the topics take."""
    path = folder / name
    if what == "instruments":
        read_folder(folder)
    elif what == "limits":
        read_limits(path, "as agreed today")
    elif what == "h":
        load_history(str(path), days=5)
    else:
        found = read_market(path, Asked(), 1)
        for record, ts in zip(found.records, found.ts.tolist(), strict=True):
            made = decoder_of(Trade if found.topic == "trades" else Tick).decode(encode(record | {"ts_event": ts}))
            if isinstance(made, Trade):
                check_trade(made)


@settings(max_examples=scaled(250), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(ROWS)), st.sampled_from(["csv", "yaml", "json", "jsonl", "parquet"]), st.data())
def test_no_file_raises_anything_but_a_refusal_with_its_name(tmp_path: Path, what: str, kind: str, data: st.DataObject) -> None:
    rows = [dict(row) for row in ROWS[what]]
    for _ in range(data.draw(st.integers(0, 3), "cells")):
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.sampled_from(sorted(row)))] = data.draw(ODD)
    raw = bytearray(written(rows, kind))
    for _ in range(data.draw(st.integers(0, 2), "bytes")):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    name = f"{what}.{kind}"
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / "accounts.csv").write_text("account,book,desk,strategy,fund\nA,B,D,S,F\n")
    (tmp_path / name).write_bytes(bytes(raw))
    try:
        read(tmp_path, what, name)
    except (FileRefused, HistoryError, Refused) as error:
        assert name in str(error)


@settings(max_examples=scaled(60), deadline=None)
@example([[1.0, 0.0, -1.0]])
@given(st.lists(st.lists(st.one_of(st.none(), st.just(0.0), st.floats(-1e6, -1e-6), st.floats(1e-6, 1e6)), min_size=3, max_size=12), min_size=1, max_size=3))
def test_a_report_of_any_history_has_numbers_only(columns: list[list[float | None]]) -> None:
    from app.files.reading import Table
    from app.history import levels_of, moves_of

    size = min(map(len, columns))
    table = Table("h", {"date": [f"2024-01-{k + 1:02d}" for k in range(size)]} | {f"F{k}": c[:size] for k, c in enumerate(columns)}, list(range(1, size + 1)), has_lines=False)
    levels = levels_of(table)
    json.dumps(examine(levels), allow_nan=False)
    assert all(isinstance(line, str) for line in findings(levels))
    assert moves_of(levels, 5).moves.shape[1] == len(columns)

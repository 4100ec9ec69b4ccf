"""Public cases of files: what was handed over with its right value, compared record by record."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.files.market import Asked, MarketFile, read_market
from app.files.refusals import FileRefused
from app.history import HistoryError, load_history
from app.reference_files import read_folder
from schemas.codec import encode
from schemas.units import format_ts_ns, parse_ts_ns
from tests.folding import feed, new_partition

FIELD = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "faults" / "field"
CASES = sorted(p for p in FIELD.glob("*.json") if str(json.loads(p.read_text()).get("how", "")).startswith("file:"))


def seen(case: dict[str, Any], folder: Path) -> Any:
    """Return what a reader makes of the file of a case: a text where it is refused."""
    body = case["input"]
    path = folder / body["name"]
    path.write_bytes(base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode())
    try:
        if body["as"] == "reference":
            (folder / "accounts.csv").write_text("account,book,desk,strategy,fund\nA1,B,D,S,F\n")
            return read_folder(folder)[0]
        if body["as"] == "history":
            return load_history(str(path))
        found = read_market(path, Asked(), 1)
    except (FileRefused, HistoryError) as error:
        return str(error)
    return "\n".join(found.refused) or found


def value_at(made: Any, name: str) -> Any:
    """Return what a name of an expectation stands for: a field of a record, of the n-th one, or the moves of a factor."""
    field, _, row = name.partition(".")
    if isinstance(made, list):
        return getattr(made[0], field)
    if not isinstance(made, MarketFile):
        return made.moves[:, made.factors.index(row)].tolist()
    if field == "ts_event":
        return parse_ts_ns(format_ts_ns(int(made.ts[int(row)])))
    return made.records[int(row or -1)].get(field)


def agrees(case: dict[str, Any], made: Any, expected: dict[str, Any]) -> bool:
    """Return whether a file was read, or refused, as an expectation says."""
    if "refused" in expected:
        parts = expected["refused"]
        where = f"{parts['file']}:{parts['line']}:" if "line" in parts else parts.get("file", "")
        return isinstance(made, str) and where in made and str(parts.get("field", "")) in made
    if isinstance(made, str):
        return False
    if "position" in expected:
        part = new_partition()
        feed(part, [json.loads(encode(r | {"instrument": "ACME", "ts_event": int(t)})) for r, t in zip(made.records, made.ts, strict=True)])
        records = part.records(np.arange(len(part.positions)))
        return [float(r.quantity) for r in records] == [expected["is"]["quantity"]]
    for name, value in (expected.get("is") or {}).items():
        found = value_at(made, name)
        if isinstance(value, list):
            value, found = pytest.approx(value, abs=case["tolerance"] + 1e-9), list(found)
        elif name.startswith("ts_event"):
            value = parse_ts_ns(value)
        elif isinstance(value, int | float):
            found = float(found)
        if found != value:
            return False
    return True


@pytest.mark.skipif(not CASES, reason="no ../shared/faults/field beside this checkout: cases of files are not run")
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_public_case_of_files_is_read_right_or_refused(tmp_path: Path, path: Path) -> None:
    case = json.loads(path.read_text())
    made = seen(case, tmp_path)
    wanted = [case["expected"], *([case["also_right"]] if isinstance(case.get("also_right"), dict) else [])]
    assert any(agrees(case, made, expected) for expected in wanted), (wanted, made)

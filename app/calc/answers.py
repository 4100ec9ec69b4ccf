"""What a calculator answers: a refusal with its field, or figures as JSON can carry them, none of them null untold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np

from app.calc.line import CALCULATORS, Exact, FieldError, Line


class _TwiceError(ValueError):
    """A line has a field twice."""

    def __init__(self, field: str, values: list[Any]) -> None:
        super().__init__(field)
        self.field, self.values = field, values


def plain(value: Any) -> Any:
    """Return a result as JSON can carry it: arrays as lists, what is not a number as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.floating | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


def _nulls(value: Any, path: str = "") -> Iterator[str]:
    """Yield where an answer is null."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _nulls(v, f"{path}.{k}" if path else k)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from _nulls(v, f"{path}[{i}]")


def _refusal(name: str, label: dict[str, Any], error: FieldError) -> dict[str, Any]:
    said = {"field": error.field, "value": plain(error.value), "expected": error.expected}
    return {"calc": name, **label, "error": said | ({"nearest": error.nearest} if error.nearest else {})}


def _from_model(line: Line, error: Exception) -> FieldError:
    """Return the refusal of what a model refused: its text says the field, or else the line is at fault as a whole."""
    field, colon, text = str(error).partition(": ")
    if isinstance(error, ValueError) and colon and field in line.fields:
        expected = text.removeprefix("expected ").rpartition(", was ")[0] or text
        return FieldError(field, line.fields[field], expected)
    return FieldError("line", None, f"fields within the calculator's domain ({type(error).__name__}: {error})")


def calculate(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return one result with its conventions, or an error with the field.

    Every field is read by the calculator or refused here; a figure that is null says why under ``undefined``.

    Raises
    ------
    KeyError
        There is no such calculator.
    """
    line = Line(fields, called=name)
    label: dict[str, Any] = {k: fields[k] for k in ("id", "name") if k in fields}
    line.read |= set(label)
    try:
        found = plain(CALCULATORS[name](line))
    except FieldError as error:
        return _refusal(name, label, error)
    except (ValueError, ArithmeticError, TypeError, LookupError, RuntimeError) as error:
        return _refusal(name, label, _from_model(line, error))
    for left in line.leftover():
        return _refusal(name, label, left)
    reasons = {}
    for path in _nulls(found):
        why = next((part for part in re.split(r"\.|\[\d+\]", path) if part in line.reasons), None)
        if why is None:
            return _refusal(name, label, FieldError(path, None, "fields for which this figure is defined"))
        reasons[why] = line.reasons[why]
    out = {"calc": name, **label, **found, "conventions": plain(line.conventions)}
    return out | ({"undefined": reasons} if reasons else {})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [k for k, _ in pairs]
        field = next(k for k in names if names.count(k) > 1)
        raise _TwiceError(field, [v for k, v in pairs if k == field])
    return out


def run_lines(name: str, lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    """Yield a result for every line that is not empty; a bad line yields an error and costs its neighbours nothing.

    Bytes are UTF-8; a byte-order mark before the first line is none of its text.
    """
    for number, raw in enumerate(lines, 1):
        label: dict[str, Any] = {"line": number}
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
        if not text.strip():
            continue
        try:
            text.encode()  # bytes that are no UTF-8 raise here
            fields = json.loads(text, parse_float=Exact, object_pairs_hook=_once)
            if not isinstance(fields, dict):
                raise ValueError("another JSON value")
        except _TwiceError as error:
            yield _refusal(name, label, FieldError(error.field, error.values, "the field once"))
        except (ValueError, RecursionError) as error:  # broken JSON, and bytes that are no UTF-8
            seen = text.strip()[:200].encode("utf-8", "replace").decode()
            yield _refusal(name, label, FieldError("line", seen, f"a JSON object ({error})"))
        else:
            yield calculate(name, fields)

"""Cells of files as fields of records: one rule a kind of field, every refusal of a record, not only the first."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from app.files.reading import Naive, Table, Utc
from app.files.refusals import expected, shown, unknown
from schemas.numbers import Name, check_decimal
from schemas.units import NS_PER_S, format_ts_ns

#: fields whose text may be a whole number in files that have numbers; of other names it may have lost zeros in front
NUMBERED = frozenset({"trade_id", "ref_trade_id", "order_id", "account", "venue", "source"})
#: codes of currencies: capital letters and digits
CURRENCY_FIELDS = frozenset({"currency", "settlement", "base_currency"})
CURRENCY_FORM = "a code of 2 to 12 capital letters and digits"
CURRENCY = re.compile(r"[A-Z0-9]{2,12}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: what a spreadsheet puts in place of a long number
_ROUNDED = re.compile(r"\d(?:\.\d+)?E\+\d+", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def decimal_of(cell: Any, name: str) -> Decimal:
    """Return the exact number of a cell.

    Raises
    ------
    ValueError
        It is none: with the field and the value; a comma is no decimal point, and parts no thousands.
    """
    if isinstance(cell, str) and _DECIMAL.fullmatch(cell):
        found = Decimal(cell)
    elif isinstance(cell, int | float | Decimal) and not isinstance(cell, bool | Utc | Naive):
        found = cell if isinstance(cell, Decimal) else Decimal(repr(cell))
    else:
        what = "a number with a decimal point and no commas" if "," in str(cell) else "a decimal number"
        raise ValueError(expected(name, what, cell))
    check_decimal(found, name)
    return found


def text_of_cell(cell: Any, name: str) -> str:
    """Return the text of a cell.

    Raises
    ------
    ValueError
        It is a number that may have lost zeros in front, or none that is text.
    """
    if isinstance(cell, str):
        if _ROUNDED.fullmatch(cell):
            raise ValueError(expected(name, "all digits of what a spreadsheet took for a number", cell))
        return cell
    if isinstance(cell, date):
        return cell.isoformat()[:10]
    if isinstance(cell, Utc):
        return format_ts_ns(cell)
    if isinstance(cell, Naive) and cell % (86_400 * NS_PER_S) == 0:
        return format_ts_ns(cell)[:10]
    if isinstance(cell, int) and not isinstance(cell, bool | Naive) and name in NUMBERED:
        return str(cell)
    why = " (a number may have lost zeros in front)" if isinstance(cell, int | float | Decimal) else ""
    raise ValueError(f"{name}: expected text{why}, was {type(cell).__name__} {shown(cell)}")


def _parts(kind: Any) -> tuple[Any, ...]:
    """Return what a type may be, without None and annotations."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _parts(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(p for k in typing.get_args(kind) for p in _parts(k) if p is not type(None))
    return (kind,)


@cache
def fields_of(cls: type[msgspec.Struct]) -> dict[str, tuple[Any, tuple[Any, ...], bool]]:
    """Return the type, its parts, and whether it has to be there, of every field of a record."""
    return {f.encode_name: (f.type, _parts(f.type), f.required) for f in msgspec.structs.fields(cls)}


def value_of(cell: Any, name: str, kind: Any, parts: tuple[Any, ...]) -> Any:
    """Return a cell as the value of a field.

    Raises
    ------
    ValueError
        It is none: with the field, the value and what was expected.
    """
    if Decimal in parts:
        return decimal_of(cell, name)
    words = [str(w) for p in parts if typing.get_origin(p) is typing.Literal for w in typing.get_args(p)]
    if words and (not isinstance(cell, str) or cell not in words):
        raise ValueError(expected(name, " or ".join(words), cell))
    if bool in parts:
        found = cell if isinstance(cell, bool) else _TRUTH.get(str(cell).lower())
        if found is None:
            raise ValueError(expected(name, "true or false", cell))
        return found
    if parts == (int,):
        whole = isinstance(cell, float | Decimal) and cell == int(cell) if not isinstance(cell, str) else False
        if not (whole or (isinstance(cell, int) and not isinstance(cell, bool | Utc | Naive))
                or (isinstance(cell, str) and _WHOLE.fullmatch(cell))):
            raise ValueError(expected(name, "a whole number", cell))
        cell = int(cell)
    elif float in parts:
        cell = float(decimal_of(cell, name))
    elif str in parts:
        cell = text_of_cell(cell, name)
        if name in CURRENCY_FIELDS and not CURRENCY.fullmatch(cell):
            raise ValueError(expected(name, CURRENCY_FORM, cell))
        if kind is Name and "|" in cell:
            raise ValueError(expected(name, "no bar in a name: keys have bars between names", cell))
    try:
        return msgspec.convert(cell, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        why = str(error)
        raise ValueError(why if why.startswith(name) else f"{name}: {why}, was {shown(cell)}") from error


def record_of(row: dict[str, Any], cls: type[msgspec.Struct]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a row by field, and what is wrong with it: every field, unknown and missing ones too."""
    known = fields_of(cls)
    out: dict[str, Any] = {}
    problems = [unknown(name, known, f"a field of {cls.__name__}") for name in row if name not in known]
    for name, (kind, parts, required) in known.items():
        if name not in row:
            if required:
                problems.append(f"{name}: expected a value, was empty")
            continue
        try:
            out[name] = value_of(row[name], name, kind, parts)
        except (ValueError, ArithmeticError) as error:
            text = str(error)
            problems.append(text if text.startswith(name) else f"{name}: {text or type(error).__name__}, "
                            f"was {shown(row[name])}")
    return out, problems


def unknown_columns(table: Table, known: Iterable[str], what: str) -> list[str]:
    """Return a refusal for each column that nobody reads, with the line of the head or of the first record with it."""
    names = list(known)
    out = []
    for column, cells in table.columns.items():
        if column in names:
            continue
        row = next((i for i, c in enumerate(cells) if c is not None), None)
        where = (f"{table.name}:{table.head}" if table.head is not None
                 else table.name if row is None else table.where(row, column))
        out.append(f"{where}: {unknown(column, names, what)}")
    return out

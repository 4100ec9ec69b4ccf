"""Parquet files as columns of plain values."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from app.files.refusals import FileRefused

_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def parquet_columns(name: str, raw: bytes) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return the columns of a Parquet file, and the time zones of those that name one.

    Cells are text, exact numbers, dates, `Utc` and `Naive` times; None is missing.

    Raises
    ------
    FileRefused
        It is no Parquet file, or names a column twice.
    """
    try:
        # folders with names like symbol=0700 are no columns
        table = parquet.read_table(io.BytesIO(raw), partitioning=None)
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileRefused(f"{name}: expected parquet that can be read: {error}") from error
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise FileRefused(f"{name}: {twice[0]}: expected each column once, was there twice")
    zones = {f.name: f.type.tz for f in table.schema if pa.types.is_timestamp(f.type) and f.type.tz}
    return {n: _readable(name, n, column) for n, column in zip(names, table.columns, strict=True)}, zones


def _readable(name: str, column_name: str, column: Any) -> list[Any]:
    """Return the cells of a column, or refuse the first that is none: text that is no UTF-8, a date of no calendar."""
    try:
        return _cells(column)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        for row in range(len(column)):
            try:
                _cells(column.slice(row, 1))
            except (pa.ArrowException, ValueError, OverflowError) as first:
                raise FileRefused(f"{name}[{row + 1}]: {column_name}: expected a value that can be read: "
                                  f"{first}") from first
        raise FileRefused(f"{name}: {column_name}: expected values that can be read: {error}") from error


def _cells(column: Any) -> list[Any]:
    from app.files.reading import Naive, Utc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind):
        factor, made = _NS[kind.unit], Naive if kind.tz is None else Utc
        return [None if v is None else made(v * factor) for v in column.cast(pa.int64()).to_pylist()]
    found = column.to_pylist()
    if pa.types.is_float64(kind):
        return [None if v is None or v != v else v for v in found]
    if pa.types.is_floating(kind):  # 1.1 in 32 bits is 1.1, not 1.10000002384
        narrow = np.float32 if pa.types.is_float32(kind) else np.float16
        return [None if v is None or v != v else Decimal(str(narrow(v))) for v in found]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [None if v is None else v.strip() or None for v in found]
    return list(found)

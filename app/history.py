"""Daily history of prices, volatilities and rates as factor moves: from Parquet, CSV or ClickHouse."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History

#: the newest days that become scenarios
DAYS = 500


class HistoryError(ValueError):
    """The file or table is not a history: what was expected, what was found."""


def load_history(source: str, scaled: bool = False, horizon_days: int = 1, days: int = DAYS) -> History:
    """Return the newest daily moves of a history.

    Parameters
    ----------
    source : a `.csv` or `.parquet` file, or ``clickhouse://user:password@host:9000/db?table=history``. Either wide (a
        ``date`` column and one column a symbol) or long (``date``, ``symbol``, ``close``). Prices; symbols that begin
        with ``VOL:`` or ``RATE:`` are levels whose moves are differences.
    scaled : scenarios are scaled to the volatility of today
    horizon_days : a scenario is so many days in a row

    Raises
    ------
    HistoryError
        It cannot be read as one.
    """
    if source.startswith("clickhouse://"):
        rows = _clickhouse(source)
    else:
        path = Path(source)
        if not path.exists():
            raise HistoryError(f"history: no file {path}")
        rows = _csv(path) if path.suffix == ".csv" else _parquet(path)
    return replace(from_columns(rows, days), scaled=scaled, horizon_days=horizon_days)


def _csv(path: Path) -> dict[str, list[Any]]:
    with path.open(newline="") as file:
        reader = csv.reader(file)
        head = next(reader, [])
        columns: dict[str, list[Any]] = {name: [] for name in head}
        for number, row in enumerate(reader, start=2):
            if len(row) != len(head):
                raise HistoryError(f"{path.name}:{number}: expected {len(head)} fields, was {len(row)}")
            for name, value in zip(head, row, strict=True):
                columns[name].append(value)
    return columns


def _parquet(path: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}


def _clickhouse(url: str) -> dict[str, list[Any]]:
    from clickhouse_driver import Client

    parsed = urlparse(url)
    table = dict(p.split("=", 1) for p in parsed.query.split("&") if "=" in p).get("table", "history")
    if not table.replace("_", "").replace(".", "").isalnum():
        raise HistoryError(f"history: expected the name of a table, was {table!r}")
    client = Client.from_url(url.partition("?")[0])
    try:
        found = client.execute(f"SELECT toString(date), symbol, close FROM {table} ORDER BY date")
    finally:
        client.disconnect()
    return {"date": [r[0] for r in found], "symbol": [r[1] for r in found], "close": [r[2] for r in found]}


def from_columns(columns: dict[str, list[Any]], days: int) -> History:
    """Return the moves of prices by column.

    A gap inside a series keeps the last price, one before its first price makes the series unusable.

    Raises
    ------
    HistoryError
        There is no date, or less than two days.
    """
    if "date" not in columns:
        raise HistoryError(f"history: expected a column 'date', was {sorted(columns)[:8]}")
    dates = [str(d)[:10] for d in columns["date"]]
    if {"symbol", "close"} <= set(columns):
        names = sorted(set(columns["symbol"]))
        labels = sorted(set(dates))
        table = np.full((len(labels), len(names)), np.nan)
        row, column = {d: i for i, d in enumerate(labels)}, {n: i for i, n in enumerate(names)}
        for d, n, value in zip(dates, columns["symbol"], columns["close"], strict=True):
            table[row[d], column[n]] = _number(value)
    else:
        names = [n for n in columns if n != "date"]
        order = np.argsort(np.array(dates))
        labels = [dates[i] for i in order.tolist()]
        table = np.array([[_number(v) for v in columns[n]] for n in names]).T[order]
    if len(labels) < 2 or not names:
        raise HistoryError(f"history: expected at least two days and a symbol, was {len(labels)} and {len(names)}")
    for i in range(1, len(table)):
        table[i] = np.where(np.isnan(table[i]), table[i - 1], table[i])
    table = table[-(days + 1):]
    level = np.array([n.startswith((VOLATILITY_FACTOR, RATE_FACTOR)) for n in names])
    # a price that was at or below zero has no relative moves: a rise from -37.63 to 10.01 is no fall of 127 %
    through_zero = ~level & (table <= 0.0).any(axis=0)
    steps = np.diff(table, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.where(level | through_zero, steps, table[1:] / table[:-1] - 1.0)
    return History(tuple(names), moves, tuple(labels[-len(moves):]), steps=steps,
                   absolute=frozenset(n for n, zero in zip(names, through_zero.tolist(), strict=True) if zero))


def _number(value: Any) -> float:
    return float("nan") if value is None or value == "" else float(value)

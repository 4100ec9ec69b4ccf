"""Daily history of prices, volatilities and rates as factor moves: dates are parsed, moves typed."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from app.files.reading import Naive, Table, Utc, read_table
from app.files.records import decimal_of
from app.files.refusals import FileRefused, expected, unknown
from app.files.times import zone_of
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History
from schemas.units import DATE_END, DATE_MIN, NS_PER_S

log = logging.getLogger(__name__)
#: the newest days that become scenarios
DAYS = 500
#: what a column ``moves``, or a record whose date is that word, says of a factor
MOVES = ("relative", "log", "absolute")
#: cells of a history that are missing, beside empty ones
MISSING = frozenset({".", "nan", "null", "none"})
#: what files of daily prices have beside the close
BESIDE = ("open", "high", "low", "volume")
ADJUSTED = ("adj close", "adj_close", "adjclose", "adjusted_close")
_DAY = re.compile(r"(\d{4})([-/.]?)(\d\d)\2(\d\d)(?:[Tt ]\d\d:\d\d.*)?", re.ASCII)


class HistoryError(ValueError):
    """The file or table is not a history: a line for each problem, with what was expected and what was found."""


@dataclass(frozen=True)
class Levels:
    """A history as it was read: a row a day, the oldest first, NaN where there is no value.

    Attributes
    ----------
    moves : stated types of moves, by factor
    repeated : records that say again what another one says
    """

    name: str
    days: tuple[date, ...]
    factors: tuple[str, ...]
    values: np.ndarray
    moves: Mapping[str, str] = field(default_factory=dict)
    repeated: int = 0


def load_history(source: str, scaled: bool = False, horizon_days: int = 1, days: int = DAYS) -> History:
    """Return the newest daily moves of a history; what is odd about it is logged.

    Parameters
    ----------
    source : see `load_levels`
    scaled : scenarios are scaled to the volatility of today
    horizon_days : a scenario is so many days in a row

    Raises
    ------
    HistoryError
        It cannot be read as one.
    """
    from app.history_report import findings

    levels = load_levels(source)
    history = moves_of(levels, days)
    for line in findings(levels, days):
        log.warning("history: %s", line)
    return replace(history, scaled=scaled, horizon_days=horizon_days)


def load_levels(source: str) -> Levels:
    """Return a history as it was read.

    Parameters
    ----------
    source : a file (see `app.files.reading`), or ``clickhouse://user:password@host:9000/db?table=history``. Either
        wide (a ``date`` column and one column a symbol) or long (``date``, ``symbol``, ``close``). Prices; symbols that
        begin with ``VOL:`` or ``RATE:`` are levels whose moves are differences.

    Raises
    ------
    HistoryError
        It cannot be read as one: with every problem.
    """
    if source.startswith("clickhouse://"):
        return levels_of(_clickhouse(source))
    path = Path(source)
    if not path.exists():
        raise HistoryError(f"history: no file {path}")
    try:
        return levels_of(read_table(path))
    except FileRefused as error:
        raise HistoryError(str(error)) from None


def _clickhouse(url: str) -> Table:
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
    names = ("date", "symbol", "close")
    return _table({name: [r[k] for r in found] for k, name in enumerate(names)}, table)


def _table(columns: dict[str, list[Any]], name: str = "history") -> Table:
    count = max(map(len, columns.values()), default=0)
    return Table(name, columns, list(range(1, count + 1)), has_lines=False)


def from_columns(columns: dict[str, list[Any]], days: int) -> History:
    """Return the moves of prices by column; see `moves_of`."""
    return moves_of(levels_of(_table(columns)), days)


def day_of(cell: Any, zone: str = "UTC") -> date | None:
    """Return the day of a cell, None where it says none: year, month, day in that order, or a time of that day.

    Parameters
    ----------
    zone : of a time in a column of times
    """
    if isinstance(cell, Utc | Naive):
        local = UTC if isinstance(cell, Naive) else zone_of(zone)
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=cell // NS_PER_S)).astimezone(local).date()
    if isinstance(cell, date):
        return cell
    if isinstance(cell, float) and cell == int(cell):
        cell = int(cell)
    found = _DAY.fullmatch(str(cell))
    try:
        day = date(int(found.group(1)), int(found.group(3)), int(found.group(4))) if found else None
    except ValueError:
        return None
    return day if day is not None and DATE_MIN <= day < DATE_END else None


def levels_of(table: Table) -> Levels:
    """Return a table as a history.

    Raises
    ------
    HistoryError
        A date is none, or may be two; a value is none; a day has two values; moves that are stated cannot be.
    """
    names = {name.strip().lower(): name for name in table.columns}
    if "date" not in names:
        raise HistoryError(f"{table.name}: date: expected a column date, was {sorted(table.columns)[:8]}")
    reader = _Reader(table, names)
    if "symbol" in names:
        reader.read_long()
    else:
        reader.read_wide()
    problems = [*table.problems, *reader.problems]
    if problems:
        raise HistoryError("\n".join(problems))
    return reader.levels()


class _Reader:
    def __init__(self, table: Table, names: dict[str, str]) -> None:
        self._table, self._names = table, names
        self.problems: list[str] = []
        self._moves: dict[str, str] = {}
        self._stated: dict[str, int] = {}
        #: value, and where it stands, by day and factor
        self._found: dict[tuple[date, str], tuple[float, int]] = {}
        self._factors: dict[str, None] = {}
        self._repeated = 0
        self._days = self._dates()

    def _dates(self) -> list[date | None]:
        column = self._names["date"]
        zone = self._table.zones.get(column, "UTC")
        out = []
        for row, cell in enumerate(self._table.columns[column]):
            day = day_of(cell, zone) if cell is not None else None
            if day is None and not (isinstance(cell, str) and cell.lower() == "moves" and "symbol" not in self._names):
                what = "a date as 2026-11-20 (day and month of other orders are not guessed)"
                self._refuse(row, column, expected("date", what, "" if cell is None else cell))
            out.append(day)
        return out

    def _refuse(self, row: int, column: str, text: str) -> None:
        self.problems.append(f"{self._table.where(row, column)}: {text}")

    def _head(self, text: str) -> None:
        head = self._table.head
        self.problems.append(f"{self._table.name}{'' if head is None else f':{head}'}: {text}")

    def _value(self, row: int, column: str, factor: str) -> None:
        cell, day = self._table.columns[column][row], self._days[row]
        if cell is None or day is None or cell != cell or (isinstance(cell, str) and cell.lower() in MISSING):
            return
        try:
            value = float(decimal_of(cell, factor))
        except (ValueError, ArithmeticError) as error:
            self._refuse(row, column, str(error))
            return
        if factor.startswith(VOLATILITY_FACTOR) and value <= 0.0:
            self._refuse(row, column, expected(factor, "a volatility above 0", cell))
        before = self._found.get((day, factor))
        if before is None:
            self._found[day, factor] = value, row
        elif before[0] == value:
            self._repeated += 1
        else:
            self._refuse(row, column, expected(factor, f"one value of {day}, {before[0]:g} in "
                                               f"{self._table.where(before[1])}", cell))

    def _type(self, row: int, column: str, factor: str, cell: Any) -> None:
        if cell is None:
            return
        word = str(cell).lower()
        if word not in MOVES:
            self._refuse(row, column, expected("moves", " or ".join(MOVES), cell))
        elif self._moves.setdefault(factor, word) != word:
            self._refuse(row, column, expected("moves", f"one type of {factor}, {self._moves[factor]} before", cell))
        self._stated.setdefault(factor, row)

    def read_long(self) -> None:
        known = ("date", "symbol", "close", "moves", *BESIDE)
        closes = [n for n in self._names if n == "close" or n in ADJUSTED]
        if len(closes) != 1:
            self._head(expected("close", "one column of closes", ", ".join(closes) or ", ".join(self._table.columns)))
            return
        for name, column in self._names.items():
            if name not in known and name not in closes:
                self._head(unknown(column, known, "a column of a history"))
        symbols, moves = self._table.columns[self._names["symbol"]], self._names.get("moves")
        for row, symbol in enumerate(symbols):
            if not isinstance(symbol, str):
                self._refuse(row, self._names["symbol"], expected("symbol", "a text", "" if symbol is None else symbol))
                continue
            self._factors[symbol] = None
            self._value(row, self._names[closes[0]], symbol)
            if moves is not None:
                self._type(row, moves, symbol, self._table.columns[moves][row])

    def read_wide(self) -> None:
        if {"open", "high", "low", "close"} <= self._names.keys():
            self._head(expected("symbol", "a column symbol beside open, high, low and close",
                                ", ".join(self._table.columns)))
            return
        for column in self._table.columns:
            if column == self._names["date"]:
                continue
            self._factors[column] = None
            for row, day in enumerate(self._days):
                if day is not None:
                    self._value(row, column, column)
                elif str(self._table.columns[self._names["date"]][row]).lower() == "moves":
                    self._type(row, column, column, self._table.columns[column][row])

    def levels(self) -> Levels:
        days = sorted({day for day in self._days if day is not None})
        factors = sorted(self._factors) if "symbol" in self._names else list(self._factors)
        if len(days) < 2 or not factors:
            raise HistoryError(f"{self._table.name}: expected at least two days and a symbol, was {len(days)} and "
                               f"{len(factors)}")
        values = np.full((len(days), len(factors)), np.nan)
        row, column = {d: i for i, d in enumerate(days)}, {n: i for i, n in enumerate(factors)}
        for (day, factor), (value, _) in self._found.items():
            values[row[day], column[factor]] = value
        problems = []
        for factor, word in self._moves.items():
            series = values[:, column[factor]]
            low = np.flatnonzero(series <= 0.0)
            if word != "absolute" and len(low) and not factor.startswith((VOLATILITY_FACTOR, RATE_FACTOR)):
                where = self._table.where(self._found[days[low[0]], factor][1])
                problems.append(f"{where}: " + expected(factor, f"a price above 0 of what has {word} moves",
                                                        f"{series[low[0]]:g}"))
            if word != "absolute" and factor.startswith((VOLATILITY_FACTOR, RATE_FACTOR)):
                problems.append(f"{self._table.where(self._stated[factor])}: " + expected(
                    "moves", f"absolute ({factor} is a level)", word))
        if problems:
            raise HistoryError("\n".join(problems))
        return Levels(self._table.name, tuple(days), tuple(factors), values, self._moves, self._repeated)


def absolute_factors(levels: Levels) -> np.ndarray:
    """Return which prices move by differences: those that say so, and those that were at or below zero once."""
    stated = np.array([levels.moves.get(n) == "absolute" for n in levels.factors])
    level = np.array([n.startswith((VOLATILITY_FACTOR, RATE_FACTOR)) for n in levels.factors])
    return ~level & (stated | (levels.values <= 0.0).any(axis=0))


def moves_of(levels: Levels, days: int) -> History:
    """Return the newest moves of a history.

    A gap inside a series keeps the last price, one before its first price makes the series unusable. A price that was
    at or below zero has no relative moves: a rise from -37.63 to 10.01 is no fall of 127 %.
    """
    table = levels.values.copy()
    for i in range(1, len(table)):
        table[i] = np.where(np.isnan(table[i]), table[i - 1], table[i])
    absolute = absolute_factors(levels)
    table = table[-(days + 1):]
    level = np.array([n.startswith((VOLATILITY_FACTOR, RATE_FACTOR)) for n in levels.factors])
    steps = np.diff(table, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.where(level | absolute, steps, table[1:] / table[:-1] - 1.0)
    labels = tuple(day.isoformat() for day in levels.days[-len(moves):])
    names: Sequence[str] = levels.factors
    return History(tuple(names), moves, labels, steps=steps,
                   absolute=frozenset(n for n, a in zip(names, absolute.tolist(), strict=True) if a))

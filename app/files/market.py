"""Files of quotes, prints and trades as records of the topics; what is no such record is refused, row by row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, tzinfo
from pathlib import Path
from typing import Any

import numpy as np

from app.files.market_rows import SIDES, TIME, Ticks, Trades
from app.files.reading import Table, read_table, stem_of
from app.files.records import fields_of
from app.files.refusals import FileRefused, expected, unknown
from app.files.symbols import symbol_of, words
from app.files.times import UNITS, read_times
from schemas.records import Tick, Trade

#: names of times, in other people's files
TIMES = ("ts", "timestamp", "time", "datetime", "date_time", "event_time", "transact_time", "transaction_time",
         "sip_timestamp", "trade_time")
#: other people's names of our fields, as `_squeezed` writes them
ALIASES = {
    **dict.fromkeys(("symbol", "ticker", "pair", "sym"), "instrument"),
    **dict.fromkeys(("size", "qty", "amount", "lastsize", "lastqty"), "quantity"),
    **dict.fromkeys(("bidprice", "bestbid", "bestbidprice", "bidpx"), "bid"),
    **dict.fromkeys(("askprice", "bestask", "bestaskprice", "askpx", "offer"), "ask"),
    **dict.fromkeys(("bidqty", "bestbidqty", "bidsz"), "bid_size"),
    **dict.fromkeys(("askqty", "bestaskqty", "asksz"), "ask_size"),
    **dict.fromkeys(("lastprice", "tradeclose"), "last"), **dict.fromkeys(("exch", "exchange"), "venue"),
    "id": "trade_id", "fee": "fee", "feecurrency": "fee_currency", "suspicious": "suspicious",
    "closebid": "close_bid", "closeask": "close_ask", "close": "close"}
#: what quotes and prints have beside what a tick carries; it is named in the report
BESIDE = words("""
    volume bidvolume askvolume cond condition conditions buyermaker isbuyermaker isbestmatch bestmatch quoteqty
    quotequantity cost tradeid aggtradeid firsttradeid lasttradeid tsrecv localtimestamp participanttimestamp
    updateid sequence sequencenumber openbid highbid lowbid openask highask lowask open high low indexlevel0
    askexchange bidexchange indicators tape trftimestamp trfid participantid""")
#: sides of prints: of whoever took
TAKERS = frozenset({"buy", "sell"})
#: a file with one of these and without an account is of somebody's trades, not of prints of the market
OWN = frozenset({"order_id", "trader", "counterparty", "ref_trade_id", "action", "fees", "fee"})


#: our fields that rows of a kind have a use for, and those that are named in the report
_TICK = {"instrument", "source", "venue", "suspicious"}
USED: dict[str, set[str]] = {
    "quotes": _TICK | {"bid", "ask", "last", "bid_size", "ask_size"}, "prints": _TICK | {"last", "price"},
    "bars": _TICK | {"close", "close_bid", "close_ask"}, "one side a row": _TICK | {"side", "price", "quantity"},
    "trades": {*fields_of(Trade), "fee", "fee_currency", "suspicious"}}
TOLD: dict[str, set[str]] = {"prints": {"trade_id", "side", "quantity"}, "quotes": {"trade_id"}, "bars": {"trade_id"}}


@dataclass(frozen=True)
class Asked:
    """What a user says of files beside what is in them.

    Attributes
    ----------
    unit, zone : of times
    bar_s : how long a bar lasts; its closes are quotes at its end
    columns : other people's names, and ours
    ignore : columns that need not be read
    head : names of the columns of CSV files without them
    """

    symbol: str | None = None
    unit: str | None = None
    zone: tzinfo | None = None
    bar_s: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: frozenset[str] = frozenset()
    head: tuple[str, ...] | None = None


@dataclass
class MarketFile:
    """Records of a file, without their times, and what became of the rest.

    Attributes
    ----------
    ts : int64[records], nanoseconds
    naive : times have no zone
    refused : a line for each row that is no record
    left_out : rows that are left out for what the file says of them, counted
    not_carried : columns that records have no field for
    """

    name: str
    kind: str
    topic: str
    ts: np.ndarray
    records: list[dict[str, Any]]
    times: str
    naive: bool
    refused: list[str]
    left_out: dict[str, int]
    not_carried: list[str]


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_FIELDS = {_squeezed(n): n for n in (*fields_of(Trade), *fields_of(Tick))}


def read_market(path: Path, asked: Asked, number: int) -> MarketFile:
    """Return the records of a file of quotes, prints or trades.

    Parameters
    ----------
    number : of the file, among those of one run

    Raises
    ------
    FileRefused
        It is none of these, or columns of it cannot be told: with every problem of its head.
    """
    table = read_table(path, asked.head)
    _join_date_and_time(table)
    columns = _Columns(table, asked)
    ours, problems = columns.ours, columns.problems
    kind = _kind(table, ours, problems)
    for name in sorted(ours.keys() - USED.get(kind, ours.keys())):
        if name in TOLD.get(kind, ()):
            columns.not_carried.append(ours[name])
        else:
            problems.append(f"{_at(table)}: {ours[name]}: expected a column that {kind} have a use for, or --ignore, "
                            f"was {ours[name]!r} ({name})")
    if "source" in ours and "venue" in ours and kind != "trades":
        columns.not_carried.append(ours["venue"])
    if {"last", "price"} <= ours.keys() and kind == "prints":
        problems.append(f"{_at(table)}: price: expected last or price, was both (--ignore one of them)")
    if "instrument" not in ours and asked.symbol is None and symbol_of(path) is None:
        problems.append(f"{_at(table)}: instrument: expected a column symbol, or --symbol, was the name {path.name}, "
                        "which does not say one instrument")
    if asked.symbol is not None and "instrument" in ours:
        problems.append(f"{_at(table)}: instrument: expected --symbol or a column {ours['instrument']}, was both")
    if not len(table) and not problems and not table.problems:
        problems.append(f"{table.name}: expected records, found none")
    if kind == "bars" and asked.bar_s is None:
        name = next(ours[n] for n in ("close", "close_bid", "close_ask") if n in ours)
        problems.append(f"{_at(table)}: {name}: expected ticks, was bars; with --bar-s SECONDS their closes are "
                        "published at their ends")
    if problems:
        raise FileRefused(problems + table.problems)
    times = read_times(table, columns.time, asked.unit, asked.zone)
    if times.problems and not times.ns:
        raise FileRefused(times.problems)
    symbol = None if "instrument" in ours else asked.symbol or symbol_of(path)
    rows = (Trades if kind == "trades" else Ticks)(table, ours, times.ns, kind, symbol, f"{number}-{stem_of(path)}")
    taken = [i for i, record in enumerate(rows.records) if record is not None and times.ns[i] is not None]
    end = int((asked.bar_s or 0.0) * 1e9) if kind == "bars" else 0
    refused = [*table.problems, *times.problems, *rows.refused]
    return MarketFile(
        table.name, kind, rows.topic, np.array([(times.ns[i] or 0) + end for i in taken], np.int64),
        [record for i in taken if (record := rows.records[i]) is not None], times.form, times.naive, refused,
        {"suspicious": rows.left_out} if rows.left_out else {}, columns.not_carried)


def _join_date_and_time(table: Table) -> None:
    """Put a column of dates and a column of times in place of each other's half: what a time is takes both."""
    names = {_squeezed(name): name for name in table.columns}
    if "date" not in names or "time" not in names or any(_squeezed(t) in names for t in TIMES if t not in ("time",)):
        return
    dates, times = table.columns.pop(names["date"]), table.columns.pop(names["time"])
    table.columns["date time"] = [None if d is None or t is None else f"{text_or(d)} {text_or(t)}"
                                  for d, t in zip(dates, times, strict=True)]


def text_or(cell: Any) -> str:
    """Return a cell as a file shows it."""
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _at(table: Table) -> str:
    return table.name if table.head is None else f"{table.name}:{table.head}"


class _Columns:
    """Which of our fields each column of a file is."""

    def __init__(self, table: Table, asked: Asked) -> None:
        self.ours: dict[str, str] = {}
        self.problems: list[str] = []
        self.not_carried: list[str] = []
        self.time = ""
        self._table = table
        unknown_names = []
        for said in (*asked.columns, *asked.ignore):
            if said not in table.columns:
                self.problems.append(f"{_at(table)}: {unknown(said, table.columns, 'a column of the file')}")
        for name in table.columns:
            ours = asked.columns.get(name) or self._name(name)
            if name in asked.ignore:
                self.not_carried.append(name)
            elif ours == TIME:
                self._take(TIME, name)
            elif ours is not None:
                self._take(ours, name)
            else:
                unknown_names.append(name)
        is_trade = "account" in self.ours
        for name in unknown_names:
            if not is_trade and _squeezed(name) in BESIDE:
                self.not_carried.append(name)
            else:
                known = [*fields_of(Trade if is_trade else Tick), "symbol", "size", "ts"]
                self.problems.append(f"{_at(table)}: {unknown(name, known, 'a field of a tick or trade, or --ignore')}")
        self.time = self.ours.pop(TIME, "")
        if not self.time:
            self.problems.append(f"{_at(table)}: {TIME}: expected a column {TIME}, {' or '.join(TIMES[:3])}, "
                                 f"found {', '.join(table.columns)}")
        if not is_trade and (own := sorted(OWN & self.ours.keys())):
            self.problems.append(f"{_at(table)}: account: expected a column account beside {', '.join(own)}")

    def _name(self, name: str) -> str | None:
        squeezed = _squeezed(name)
        bare = re.sub(r"(?:_|\s*\()(ns|us|ms|s)\)?$", "", name.strip().lower())
        if squeezed == _squeezed(TIME) or bare in TIMES or bare == TIME or squeezed in map(_squeezed, TIMES):
            return TIME
        return _FIELDS.get(squeezed) or ALIASES.get(squeezed)

    def _take(self, ours: str, name: str) -> None:
        if ours in self.ours:
            self.problems.append(f"{_at(self._table)}: {name}: expected one column of {ours}, was {self.ours[ours]} "
                                 "too (--ignore one of them)")
        self.ours[ours] = name


def _kind(table: Table, ours: dict[str, str], problems: list[str]) -> str:
    """Return what the rows of a file are."""
    if "account" in ours:
        return "trades"
    quotes, closes = {"bid", "ask"} & ours.keys(), {"close", "close_bid", "close_ask"} & ours.keys()
    if quotes:
        return "quotes"
    if closes:
        return "bars"
    if {"price", "last"} & ours.keys() and "side" in ours:
        said = {str(c).lower() for c in table.columns[ours["side"]] if c is not None}
        if said and said <= SIDES.keys():
            return "one side a row"
        if not said <= TAKERS:
            cells, wanted = table.columns[ours["side"]], TAKERS if said & TAKERS else SIDES
            row = next(i for i, c in enumerate(cells) if c is not None and str(c).lower() not in wanted)
            what = "bid and ask (quotes), or buy and sell (prints), or --ignore"
            problems.append(f"{table.where(row, ours['side'])}: {expected(ours['side'], what, cells[row])}")
    if "price" in ours or "last" in ours:
        return "prints"
    problems.append(f"{_at(table)}: expected bid and ask, last, price and size, or the fields of a trade, "
                    f"found {', '.join(table.columns)}")
    return ""


def given_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return columns as ``theirs=ours`` says them.

    Raises
    ------
    FileRefused
        One is none, or is no field of ours.
    """
    out = {}
    known = [*_FIELDS.values(), "fee", "fee_currency", "close", "close_bid", "close_ask", "suspicious"]
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not theirs or not equals or ours not in known:
            raise FileRefused(f"column: expected NAME=FIELD; {unknown(ours or pair, known, 'a field')}")
        out[theirs] = ours
    return out


def given_unit(unit: str | None) -> str | None:
    """Return a unit of times.

    Raises
    ------
    FileRefused
        It is none.
    """
    if unit is not None and unit not in UNITS:
        raise FileRefused(expected("time-unit", "s, ms, us or ns", unit))
    return unit

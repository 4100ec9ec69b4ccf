"""Rows of files as ticks and trades; a row that is none is refused, with all that is wrong with it."""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.files.reading import Table
from app.files.records import CURRENCY, CURRENCY_FORM, decimal_of, fields_of, text_of_cell, value_of
from app.files.refusals import expected
from models.trade_decode import check_trade
from schemas.codec import decoder_of, encode
from schemas.records import Fee, Trade
from schemas.refusal import reason_of

TIME = "ts_event"
SIDES = {"bid": "bid", "ask": "ask", "offer": "ask"}
#: text for no number is missing, as NaN is in a column of floats
NO_NUMBER = frozenset({"nan", "null", "none"})
#: most numbers: read as they stand
_USUAL = re.compile(r"-?\d{1,15}(?:\.\d{1,14})?", re.ASCII)
_TRUST = {"false": False, "0": False, "true": True, "1": True}
_NAME_MAX = 128


class Rows(abc.ABC):
    """Records of a file, None where a row is refused or left out.

    Attributes
    ----------
    refused : a line for everything that is wrong
    left_out : how many rows the file itself says are not to be trusted
    """

    topic = "ticks"

    def __init__(self, table: Table, ours: dict[str, str], ts: Sequence[int | None], kind: str, symbol: str | None,
                 source: str) -> None:
        self._table, self._names, self._ts, self._kind = table, ours, ts, kind
        self._cells = {field: table.columns[name] for field, name in ours.items()}
        self._symbol, self._source = symbol, source
        self.refused: list[str] = []
        self._wrong: set[int] = set()
        suspicious = [self._trusted(i, c) for i, c in enumerate(self._cells.pop("suspicious", []))]
        self.left_out = sum(suspicious)
        self.records = self._made()
        for i, left_out in enumerate(suspicious):
            if left_out:
                self.records[i] = None
        for i in self._wrong:
            self.records[i] = None

    def _refuse(self, row: int, text: str) -> None:
        """Say what is wrong with a row, by the file's own name of the column and ours."""
        self._wrong.add(row)
        field, colon, why = text.partition(":")
        name = self._names.get(field, field)
        said = field if name == field else f"{name} ({field})"
        self.refused.append(f"{self._table.where(row, name)}: {said}{colon}{why}")

    def _trusted(self, row: int, cell: Any) -> bool:
        found = False if cell is None else _TRUST.get(str(cell).lower())
        if found is None:
            self._refuse(row, expected("suspicious", "true or false", cell))
        return bool(found)

    @abc.abstractmethod
    def _made(self) -> list[dict[str, Any] | None]:
        """Return the record of each row, None where it is refused."""


class Ticks(Rows):
    """Quotes, prints, sides and bars as ticks."""

    def _made(self) -> list[dict[str, Any] | None]:
        count = len(self._table)
        names = self._texts("instrument") if self._symbol is None else [self._symbol] * count
        sources = self._texts("source" if "source" in self._cells else "venue")
        columns = {name: cells for name, cells in self._prices().items() if any(c is not None for c in cells)}
        out: list[dict[str, Any] | None] = []
        priced = [c for n, c in columns.items() if n in ("bid", "ask", "last")]
        for row in range(count):
            record = {"instrument": names[row]}
            for name, cells in columns.items():
                if cells[row] is not None:
                    record[name] = cells[row]
            record["source"] = sources[row] or self._source
            out.append(record)
            if names[row] is None and row not in self._wrong:
                self._refuse(row, "instrument: expected a value, was empty")
            elif row not in self._wrong and all(cells[row] is None for cells in priced):
                name = next((n for n in ("bid", "ask", "last", "price", "close") if n in self._cells), "bid")
                self._refuse(row, f"{name}: expected a price, was empty")
        return out

    def _prices(self) -> dict[str, list[str | None]]:
        """Return the columns of a tick."""
        if self._kind == "quotes":
            return {n: self._numbers(n) for n in ("bid", "ask", "last", "bid_size", "ask_size")}
        if self._kind == "bars":
            return {n: self._numbers(c) for n, c in (("bid", "close_bid"), ("ask", "close_ask"), ("last", "close"))}
        if self._kind == "prints":
            self._numbers("quantity")
            return {"last": self._numbers("last" if "last" in self._cells else "price")}
        count = len(self._table)
        out: dict[str, list[str | None]] = {n: [None] * count for n in ("bid", "ask", "bid_size", "ask_size")}
        prices, sizes = self._numbers("price"), self._numbers("quantity")
        for row, cell in enumerate(self._cells["side"]):
            side = SIDES.get(str(cell).lower())
            if side is None:
                self._refuse(row, expected("side", "bid or ask", "" if cell is None else cell))
            else:
                out[side][row], out[f"{side}_size"][row] = prices[row], sizes[row]
        return out

    def _numbers(self, name: str) -> list[str | None]:
        return [self._number(row, name, cell) for row, cell in enumerate(
            self._cells.get(name) or [None] * len(self._table))]

    def _number(self, row: int, name: str, cell: Any) -> str | None:
        if cell is None:
            return None
        if isinstance(cell, float) and 1e-15 < abs(cell) < 1e15:
            return repr(cell)
        if isinstance(cell, str):
            if _USUAL.fullmatch(cell):
                return cell
            if cell.lower() in NO_NUMBER:
                return None
        try:
            return str(decimal_of(cell, name))
        except (ValueError, ArithmeticError) as error:
            self._refuse(row, str(error))
            return None

    def _texts(self, name: str) -> list[str | None]:
        out: list[str | None] = []
        for row, cell in enumerate(self._cells.get(name) or [None] * len(self._table)):
            try:
                text = None if cell is None else text_of_cell(cell, name)
                if text is not None and len(text) > _NAME_MAX:
                    raise ValueError(expected(name, f"at most {_NAME_MAX} characters", text))
            except ValueError as error:
                self._refuse(row, str(error))
                text = None
            out.append(text)
        return out


class Trades(Rows):
    """Executions of accounts, with every field of a trade."""

    topic = "trades"

    def _made(self) -> list[dict[str, Any] | None]:
        self._decoder, self._fields = decoder_of(Trade), fields_of(Trade)
        out: list[dict[str, Any] | None] = [self._record(row) for row in range(len(self._table))]
        first: dict[tuple[str, str], int] = {}
        for row, record in enumerate(out):
            if record is None or row in self._wrong or (record.get("action") or "new") != "new":
                continue
            before = first.setdefault((record["account"], record["trade_id"]), row)
            if before != row and (out[before], self._ts[before]) != (record, self._ts[row]):
                self._refuse(row, expected("trade_id", "an id of its own (another trade has it in "
                                           f"{self._table.where(before)})", record["trade_id"]))
        return out

    def _record(self, row: int) -> dict[str, Any]:
        cells = {field: cells[row] for field, cells in self._cells.items() if cells[row] is not None}
        wrong: list[str] = []
        out = self._trade(cells, wrong)
        ts = self._ts[row]
        if not wrong and ts is not None:
            try:  # the last word is that of whoever reads the topic
                check_trade(self._decoder.decode(encode(out | {TIME: ts})))
            except (ValueError, ArithmeticError) as error:
                wrong.append(reason_of(error, encode(out | {TIME: ts}), Trade)[1])
        for text in wrong:
            self._refuse(row, text)
        return out

    def _trade(self, cells: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
        if self._symbol is not None:
            cells["instrument"] = self._symbol
        if isinstance(cells.get("side"), str):
            cells["side"] = cells["side"].lower()
        out: dict[str, Any] = {}
        fees = self._fees(cells, wrong)
        for name, (kind, parts, required) in self._fields.items():
            if name in ("fees", TIME):
                continue
            if name not in cells:
                if required:
                    wrong.append(f"{name}: expected a value, was empty")
                continue
            try:
                out[name] = value_of(cells[name], name, kind, parts)
            except (ValueError, ArithmeticError) as error:
                wrong.append(str(error))
        if fees:
            out["fees"] = fees
        action = out.get("action") or "new"
        if action in ("new", "correct") and not fees and "quantity" in out and out["quantity"] <= 0:
            wrong.append(expected("quantity", "a number above 0 (side says buy or sell)", out["quantity"]))
        if action in ("bust", "correct") and not out.get("ref_trade_id"):
            wrong.append(f"ref_trade_id: expected the trade that the {action} is of, was empty")
        return out

    def _fees(self, cells: dict[str, Any], wrong: list[str]) -> list[dict[str, str]]:
        """Return fees: of one cell (``1.5:USD 0.1:BNB``, or a list), or of a column fee and one fee_currency."""
        found = cells.pop("fees", None)
        fee, currency = cells.pop("fee", None), cells.pop("fee_currency", None)
        if found is not None and fee is not None:
            wrong.append(expected("fee", "a column fees or a column fee", f"{found} and {fee}"))
        said = found if found is not None else fee
        try:
            if isinstance(found, str):
                found = json.loads(found, parse_float=Decimal) if found.startswith("[") else [
                    dict(zip(("amount", "currency"), part.split(":"), strict=True)) for part in found.split()]
            elif found is None:
                found = [] if fee is None else [{"amount": fee, "currency": currency}]
            if not all(f.keys() == fields_of(Fee).keys() and None not in f.values() for f in found):
                raise ValueError
            for f in found:
                if not CURRENCY.fullmatch(text_of_cell(f["currency"], "fees.currency")):
                    raise ValueError(expected("fees.currency", CURRENCY_FORM, f["currency"]))
            return [{"amount": str(decimal_of(f["amount"], "fees.amount")), "currency": f["currency"]} for f in found]
        except (ValueError, TypeError, AttributeError) as error:
            text = str(error)
            what = "amount:currency, a space between fees, or a fee and its fee_currency"
            wrong.append(text if text.startswith("fees") else expected("fees" if fee is None else "fee", what, said))
            return []

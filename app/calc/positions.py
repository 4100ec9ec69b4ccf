"""Calculators of positions: the production fold, and closed trades."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models import trade_columns as tc
from models.closed_trades import Fill, Terms, closed_trades, exited_and_held
from models.reference import Reference
from models.trade_decode import decode_trades
from schemas.records import Account, Instrument
from schemas.units import TS_MIN, decimal_parts
from tables.position_partition import PositionPartition

KINDS = ("equity", "spot", "spot_fx", "bond", "future", "option", "perpetual", "cfd")
#: what settles P&L alone, not its full value
MARGINED = ("future", "perpetual", "cfd")
#: what trades at or below zero, as in `models.reference`
ANY_SIGN = ("future", "option")
MATCHINGS = ("fifo", "lifo", "flat_to_flat")
#: decimals that positions count quantities in
DECIMALS_MAX = 12


def _exact(x: Line, *names: str, **bounds: Any) -> Decimal:
    """Return a number within bounds as the decimal it was written as; what columns cannot carry is refused."""
    x.number(*names, **bounds)
    value = x.decimal(*names, **{k: v for k, v in bounds.items() if k == "default"})
    try:
        decimal_parts(value, names[0])
    except ValueError as error:
        raise FieldError(x.name_of(*names), str(value), str(error).partition("expected ")[2]) from error
    return value


def _quantity(x: Line, *names: str, **bounds: Any) -> Decimal:
    """Return a quantity in at most as many decimals as positions count in."""
    value = _exact(x, *names, **bounds)
    if decimal_parts(value, names[0])[1] > DECIMALS_MAX:
        raise FieldError(x.name_of(*names), str(value), f"at most {DECIMALS_MAX} decimals")
    return value


class Contract:
    """What the fills of a line are of: its kind, whether it is settled in the coin, its multiplier, its currency."""

    def __init__(self, x: Line) -> None:
        inverse = x.object("instrument").flag("inverse") if x.has("instrument") else x.flag("inverse")
        usual = "perpetual" if inverse else "equity"
        self.kind = x.choice("kind", among=KINDS, default=usual)
        if inverse and self.kind not in MARGINED:
            raise FieldError("kind", self.kind, f"one of {', '.join(MARGINED)} for an inverse contract")
        self.terms = Terms(_exact(x, "multiplier", default=1.0, above=0.0), inverse)
        self.currency = x.text("quote_currency") if x.has("quote_currency") else None
        if self.currency:
            x.conventions["quote_currency"] = self.currency

    def price(self, x: Line, *names: str) -> Decimal:
        """Return a price that this contract can have."""
        value = _exact(x, *names)
        if self.terms.inverse and not value > 0:
            raise FieldError(x.name_of(*names), str(value), "above 0: an inverse contract divides by it")
        if value < 0 and self.kind not in ANY_SIGN:
            raise FieldError(x.name_of(*names), str(value), f"at least 0 (0: received at no cost); kind "
                                                            f"{' or '.join(ANY_SIGN)} trades below it")
        return value

    def fill(self, x: Line) -> Fill:
        """Return one fill: side, qty, price, and fee or fees as a trade record has them."""
        action = x.text("action") if x.has("action") else "new"
        if action not in ("new", "receipt"):
            raise FieldError(x.name_of("action"), action, "new or receipt: a line has the fills that stand")
        side, quantity = x.text("side"), _quantity(x, "qty", "quantity", above=0.0)
        if side.lower() not in ("buy", "sell"):
            raise FieldError(x.name_of("side"), side, "buy or sell")
        if x.has("fees"):
            if x.has("fee"):
                raise FieldError(x.name_of("fees"), x.fields["fees"], "none beside fee")
            fee = sum((self._fee(part) for part in x.rows("fees", minimum=0)), Decimal(0))
        else:
            fee = _exact(x, "fee") if x.has("fee") else Decimal(0)
        price = self.price(x, "price")
        if action == "receipt" and price:
            raise FieldError(x.name_of("price"), str(price), "0: a receipt comes at no cost")
        return Fill(quantity if side.lower() == "buy" else -quantity, price, fee)

    def _fee(self, x: Line) -> Decimal:
        amount, currency = x.decimal("amount"), x.text("currency")
        self.currency = self.currency or currency
        if currency != self.currency:
            raise FieldError(x.name_of("currency"), currency, f"{self.currency}: fees of a line are in the currency of "
                                                              "its P&L, and all in one")
        return amount


def _fills(x: Line, contract: Contract) -> list[Fill]:
    lines = [x.object("fill")] if x.has("fill") else []
    if not lines or x.has("fills"):
        lines = x.rows("fills") + lines
    return [contract.fill(f) for f in lines]


@calculator("position", "positions", "fold", "position_fold")
def position(x: Line) -> dict[str, Any]:
    """Fold fills with the kernels of production: average cost, FIFO and break-even, realised P&L, fees, closed trades.

    Fields: fills [{side, qty, price, fee or fees [{amount, currency}], action new|receipt}], inverse, multiplier, mark
    (or marks), start_qty and start_avg, fx_to_account, quote_currency, kind equity|spot|spot_fx|bond|future|option|
    perpetual|cfd: futures and options may trade below 0, equities settle full value in cash, margined products only
    P&L. A price of 0 is a receipt at no cost. P&L of inverse contracts is in the coin. ``realized_net`` is realised P&L
    less all fees.
    """
    contract = Contract(x)
    fills = _fills(x, contract)
    opening: list[Fill] = []
    held = _quantity(x, "start_qty", default=0.0)
    if held:
        opening = [Fill(held, contract.price(x, "start_avg"))]
    rows = list(_folded(contract, opening, fills))[len(opening):]
    last = rows[-1]
    out: dict[str, Any] = {"after_fill": rows, **last}
    out["closed"] = {m: _closed(opening + fills, m, contract.terms) for m in MATCHINGS}
    marks = [contract.price(m, "price") for m in x.rows("marks", bare="price")] if x.has("marks") else []
    if x.has("mark"):
        marks.append(contract.price(x, "mark"))
    out["marks"] = [_mark(last, float(price), contract.terms) for price in marks]
    for name in ("average_price", "fifo_average_price", "break_even_price", "open"):
        x.undefined(name, "the position is flat, or nothing was paid for what is left")
    x.undefined("exited", "no position was closed")
    if x.has("fx_to_account", "kind", "quote_currency"):
        out |= _account(x, rows, fills[-1], contract)
    if contract.currency:
        x.conventions["fees"] = f"in {contract.currency}, the currency of the P&L"
    x.conventions["method"] = "average cost; a fill through zero closes all and opens the rest at its price"
    return out | _exited_and_open(opening + fills, contract.terms)


def _closed(fills: list[Fill], matching: Any, terms: Terms) -> list[dict[str, Any]]:
    return [t.__dict__ | {"qty": t.quantity} for t in closed_trades(fills, matching, terms)]


def _partition(contract: Contract, fills: list[Fill]) -> PositionPartition:
    """Return the table of one position that counts in as many decimals as the fills have."""
    decimals = max(decimal_parts(f.quantity, "qty")[1] for f in fills)
    # the kind says which prices the contract can have, and they have been looked at: a future takes all of them
    asset_class: Literal["perpetual", "future"] = "perpetual" if contract.terms.inverse else "future"
    reference = Reference(lambda account: 0)
    reference.add_instrument(Instrument(instrument="X", asset_class=asset_class, currency="Q",
                                        inverse=contract.terms.inverse, multiplier=contract.terms.multiplier,
                                        quantity_increment=Decimal(1).scaleb(-decimals)))
    reference.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    return PositionPartition(0, reference, 4096, 0)


def _folded(contract: Contract, opening: list[Fill], fills: list[Fill]) -> Iterator[dict[str, Any]]:
    """Yield what the fold of production makes of one fill after the other."""
    part = _partition(contract, opening + fills)
    for i, fill in enumerate(opening + fills):
        trade = {"trade_id": f"T{i}", "account": "A", "instrument": "X", "side": "buy" if fill.quantity > 0 else "sell",
                 "quantity": f"{abs(fill.quantity):f}", "price": f"{fill.price:f}", "ts_event": TS_MIN + i}
        decoded = decode_trades([json.dumps(trade).encode()])
        decoded.rows["fee"] = float(fill.fee)
        tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
        part.positions.apply(decoded.rows, part.reference.arrays())
        if decoded.rows["status"].tolist() != [tc.APPLIED]:
            at = i - len(opening)
            raise FieldError("start_qty" if at < 0 else f"fills[{at}]", trade, "a fill that the fold accepts: a sum of "
                                                                               "quantities that fits 64 bits")
        yield _row(part)


def _row(part: PositionPartition) -> dict[str, Any]:
    r = part.records(np.array([0]))[0]
    assert r.realised_pnl is not None
    fees = sum(r.fees.values())
    quantity = float(r.quantity)
    return {"qty": quantity, "quantity": r.quantity, "avg_price": r.average_price if quantity else 0.0,
            "average_price": r.average_price, "realised_pnl": r.realised_pnl, "fees": fees,
            "realized_net": r.realised_pnl - fees, "fifo_realised_pnl": r.fifo.realised_pnl,
            "fifo_average_price": r.fifo.average_price, "fifo_exact": r.fifo.exact,
            "break_even_price": r.break_even_price}


def _mark(row: dict[str, Any], price: float, terms: Terms) -> dict[str, Any]:
    q, average = row["qty"] * float(terms.multiplier), row["avg_price"]
    unrealised = 0.0 if not q else q * (1 / average - 1 / price) if terms.inverse else q * (price - average)
    return {"price": price, "unrealized": unrealised, "unrealised_pnl": unrealised,
            "total": row["realized_net"] + unrealised, "notional": abs(q / price if terms.inverse else q * price)}


def _account(x: Line, rows: list[dict[str, Any]], last: Fill, contract: Contract) -> dict[str, Any]:
    """Return the last fill's profit in account currency and the cash it moved."""
    rate = x.number("fx_to_account", default=1.0, above=0.0)
    profit = rows[-1]["realised_pnl"] - (rows[-2]["realised_pnl"] if len(rows) > 1 else 0.0)
    cash = (profit - float(last.fee) if contract.kind in MARGINED else
            float(-last.quantity * last.price * contract.terms.multiplier - last.fee))
    return {"last_trade_profit": profit, "last_trade_profit_account": profit * rate,
            "fees_account": rows[-1]["fees"] * rate,
            "net_profit_account": (rows[-1]["realised_pnl"] - rows[-1]["fees"]) * rate, "cash": cash,
            "cash_account": cash * rate}


def _exited_and_open(fills: list[Fill], terms: Terms) -> dict[str, Any]:
    """Return the last position closed and the one open, fees split pro rata on a fill through zero."""
    left, held = exited_and_held(fills, terms)
    exited = None if left is None else {
        "side": "long" if left.quantity > 0 else "short", "avg_price": float(left.average), "max_qty": float(left.most),
        "realized_net": float(left.realised), "fees_enter": float(left.entered), "fees_exit": float(left.left)}
    opened = None if not held.quantity else {
        "qty": float(held.quantity), "avg_price": float(held.average), "realized_net": float(held.realised),
        "fees_enter": float(held.entered), "fees_exit": float(held.left),
        "unrealized_at_last_fill_less_est_exit_fee": float(
            terms.profit(held.quantity, held.average, fills[-1].price)
            - abs(held.quantity) / held.most * held.entered)}
    return {"exited": exited, "open": opened}


@calculator("closed_trades")
def trades_closed(x: Line) -> dict[str, Any]:
    """Closed trades of fills under one matching: fifo, lifo or flat_to_flat; a fee goes to the first trade using it.

    Fields: fills as in `position`, matching, multiplier, inverse (P&L in the coin), kind.
    """
    matching = x.choice("matching", "method", among=MATCHINGS, default="fifo")
    contract = Contract(x)
    return {"trades": _closed(_fills(x, contract), matching, contract.terms)}

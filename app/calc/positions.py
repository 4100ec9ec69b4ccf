"""Calculators of positions: the production fold, and closed trades."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models import trade_columns as tc
from models.closed_trades import Fill, closed_trades
from models.reference import Reference
from models.trade_decode import decode_trades
from schemas.records import Account, Instrument
from schemas.units import TS_MIN
from tables.position_partition import PositionPartition

DECIMALS = Decimal("0.00000001")


@calculator("position", "positions", "fold", "position_fold")
def position(x: Line) -> dict[str, Any]:
    """Fold fills with the kernels of production: average cost, FIFO and break-even, realised P&L, fees, closed trades.

    Fields: fills [{side, qty, price, fee}], inverse, multiplier, mark (or marks), start_qty and start_avg,
    fx_to_account, kind equity|future|... (equities settle full value in cash, margined products only P&L).
    ``realized_net`` is realised P&L less all fees.
    """
    inverse = x.object("instrument").flag("inverse") if x.has("instrument") else x.flag("inverse")
    multiplier = x.number("multiplier", default=1.0, above=0.0)
    fills = [x.object("fill")] if x.has("fill") else []
    if not fills or x.has("fills"):
        fills = x.rows("fills") + fills
    opening: list[Line] = []
    q = x.number("start_qty", default=0.0)
    if q:
        opening = [Line({"side": "buy" if q > 0 else "sell", "qty": abs(q), "price": x.number("start_avg", above=0.0)},
                        "start", x)]
    rows = [_one(part, i) for part in [_partition(inverse, multiplier)] for i in _feed(part, opening + fills)]
    rows = rows[len(opening):]
    last = rows[-1]
    out: dict[str, Any] = {"after_fill": rows, **last}
    out["closed"] = {m: [t.__dict__ | {"qty": t.quantity} for t in closed_trades(
        [_fill(f) for f in opening + fills], m, multiplier)]
        for m in ("fifo", "lifo", "flat_to_flat")}  # type: ignore[union-attr]
    prices = [m.number("price") for m in x.rows("marks", bare="price")] if x.has("marks") else []
    if x.has("mark"):
        prices.append(x.number("mark"))
    out["marks"] = [_mark(last, price, inverse, multiplier) for price in prices]
    flat = "the position is flat"
    for name in ("average_price", "fifo_average_price", "break_even_price", "open"):
        x.undefined(name, flat)
    x.undefined("exited", "no position was closed")
    if x.has("fx_to_account", "kind", "quote_currency"):
        out |= _account(x, rows, opening, fills, multiplier)
    out |= _exit_and_open(opening + fills, multiplier)
    x.conventions["method"] = "average cost; a fill through zero closes all and opens the rest at its price"
    return out


def _partition(inverse: bool, multiplier: float) -> PositionPartition:
    reference = Reference(lambda account: 0)
    reference.add_instrument(Instrument(instrument="X", asset_class="perpetual", currency="Q", inverse=inverse,
                                        quantity_increment=DECIMALS, multiplier=Decimal(repr(multiplier))))
    reference.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    return PositionPartition(0, reference, 4096, 0)


def _fill(f: Line) -> Fill:
    quantity = f.number("qty", "quantity", above=0.0)
    return Fill(quantity if f.choice("side", among=("buy", "sell")) == "buy" else -quantity, f.number("price"),
                f.number("fee", default=0.0))


def _feed(part: PositionPartition, fills: list[Line]) -> Any:
    for i, f in enumerate(fills):
        fill = _fill(f)
        trade = {"trade_id": f"T{i}", "account": "A", "instrument": "X", "side": "buy" if fill.quantity > 0 else "sell",
                 "quantity": f"{abs(fill.quantity):.8f}", "price": repr(fill.price), "ts_event": TS_MIN + i}
        decoded = decode_trades([json.dumps(trade).encode()])
        decoded.rows["fee"] = fill.fee
        tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
        part.positions.apply(decoded.rows, part.reference.arrays())
        status = decoded.rows["status"].tolist()
        if status != [tc.APPLIED]:
            raise FieldError(f.path, f.fields, "a fill that the fold accepts")
        yield i


def _one(part: PositionPartition, _i: int) -> dict[str, Any]:
    r = part.records(np.array([0]))[0]
    fees = sum(r.fees.values())
    quantity = float(r.quantity)
    return {"qty": quantity, "quantity": r.quantity, "avg_price": r.average_price if quantity else 0.0,
            "average_price": r.average_price, "realised_pnl": r.realised_pnl, "fees": fees,
            "realized_net": r.realised_pnl - fees, "fifo_realised_pnl": r.fifo.realised_pnl,
            "fifo_average_price": r.fifo.average_price, "break_even_price": r.break_even_price}


def _mark(row: dict[str, Any], price: float, inverse: bool, multiplier: float) -> dict[str, Any]:
    q, average = row["qty"] * multiplier, row["avg_price"]
    unrealised = 0.0 if not q else q * (1 / average - 1 / price) if inverse else q * (price - average)
    return {"price": price, "unrealized": unrealised, "unrealised_pnl": unrealised,
            "total": row["realized_net"] + unrealised, "notional": abs(q) / price if inverse else abs(q) * price}


def _account(x: Line, rows: list[dict[str, Any]], opening: list[Line], fills: list[Line],
             multiplier: float) -> dict[str, Any]:
    """Return the last fill's profit in account currency and the cash it moved."""
    rate = x.number("fx_to_account", default=1.0, above=0.0)
    if x.has("quote_currency"):
        x.conventions["quote_currency"] = x.text("quote_currency")
    before = rows[-2]["realised_pnl"] if len(rows) > 1 else 0.0
    profit = rows[-1]["realised_pnl"] - before
    last = _fill(fills[-1])
    fee = last.fee
    margined = x.choice("kind", among=("equity", "spot", "spot_fx", "bond", "future", "perpetual", "cfd"),
                        default="equity") in ("future", "perpetual", "cfd")
    cash = profit - fee if margined else -last.quantity * last.price * multiplier - fee
    return {"last_trade_profit": profit, "last_trade_profit_account": profit * rate,
            "fees_account": rows[-1]["fees"] * rate,
            "net_profit_account": (rows[-1]["realised_pnl"] - rows[-1]["fees"]) * rate, "cash": cash,
            "cash_account": cash * rate}


def _exit_and_open(fills: list[Line], multiplier: float) -> dict[str, Any]:
    """Return the last position closed and the one open, fees split pro rata on a fill through zero."""
    exited: dict[str, Any] | None = None
    q = average = most = entered = left = realised = 0.0
    last_price = 0.0
    for f in fills:
        fill = _fill(f)
        rest, fee, last_price = fill.quantity, fill.fee, fill.price
        if q * rest < 0:
            part = min(abs(q), abs(rest))
            share = fee * part / abs(rest)
            realised += (1 if q > 0 else -1) * part * (fill.price - average) * multiplier - share
            left += share
            fee -= share
            side = "long" if q > 0 else "short"
            q, rest = (q + rest, 0.0) if abs(rest) < abs(q) else (0.0, q + rest)
            if q == 0.0:
                exited = {"side": side, "avg_price": average, "max_qty": most, "realized_net": realised,
                          "fees_enter": entered, "fees_exit": left}
                average = most = entered = left = realised = 0.0
        if rest:
            average = (abs(q) * average + abs(rest) * fill.price) / (abs(q) + abs(rest))
            q += rest
            most = max(most, abs(q))
            entered += fee
            realised -= fee
    held = None if not q else {
        "qty": q, "avg_price": average, "realized_net": realised, "fees_enter": entered, "fees_exit": left,
        "unrealized_at_last_fill_less_est_exit_fee": q * (last_price - average) * multiplier - abs(q) / most * entered}
    return {"exited": exited, "open": held}


@calculator("closed_trades")
def trades_closed(x: Line) -> dict[str, Any]:
    """Closed trades of fills under one matching: fifo, lifo or flat_to_flat; a fee goes to the first trade using it."""
    matching = x.choice("matching", "method", among=("fifo", "lifo", "flat_to_flat"), default="fifo")
    fills = [_fill(f) for f in x.rows("fills")]
    found = closed_trades(fills, matching, x.number("multiplier", default=1.0))  # type: ignore[arg-type]
    return {"trades": [t.__dict__ | {"qty": t.quantity} for t in found]}

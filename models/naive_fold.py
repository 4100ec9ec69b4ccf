"""The obvious version of the position fold: dicts, lists and Decimal, one trade at a time.

It is the oracle: property tests compare the kernels with it, `deskrisk verify` replays the topics through it. It
shares no code with the kernels. Slow (about 20,000 trades a second) and meant to stay so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext

from schemas.records import Trade
from schemas.units import decimal_parts, parse_ts_ns

PRECISION = Context(prec=40)
ZERO = Decimal(0)


@dataclass
class NaiveFill:
    """One fill of a position, with the time it is ordered by."""

    trade_id: str
    quantity: Decimal  # signed
    price: Decimal
    ts: int
    effective_ts: int
    fees: dict[str, Decimal]
    funding: dict[str, Decimal] = field(default_factory=dict)
    busted: bool = False


@dataclass
class NaivePosition:
    """What the fills of one account and instrument add up to."""

    quantity: Decimal = ZERO
    average: Decimal = ZERO
    realised: Decimal = ZERO
    cost: Decimal = ZERO
    break_even_realised: Decimal = ZERO
    fifo_realised: Decimal = ZERO
    lots: list[list[Decimal]] = field(default_factory=list)
    fees: dict[str, Decimal] = field(default_factory=dict)
    funding: dict[str, Decimal] = field(default_factory=dict)
    trades: int = 0


def pnl(quantity: Decimal, entry: Decimal, exit_price: Decimal, inverse: bool) -> Decimal:
    """Return the P&L per unit of contract value of a signed quantity."""
    return quantity * (1 / entry - 1 / exit_price) if inverse else quantity * (exit_price - entry)


def fold(fills: Iterable[NaiveFill], inverse: bool) -> NaivePosition:
    """Fold fills, in the order given."""
    p = NaivePosition()
    for f in fills:
        p.trades += f.quantity != 0
        for currency, amount in f.fees.items():
            p.fees[currency] = p.fees.get(currency, ZERO) + amount
        for currency, amount in f.funding.items():
            p.funding[currency] = p.funding.get(currency, ZERO) + amount
        left = f.quantity
        if p.quantity * left < 0:
            closing = min(abs(left), abs(p.quantity)) * (1 if left > 0 else -1)
            p.realised += pnl(-closing, p.average, f.price, inverse)
            to_match = abs(closing)
            while to_match:
                lot = p.lots[0]
                part = min(abs(lot[0]), to_match)
                sign = 1 if lot[0] > 0 else -1
                p.fifo_realised += pnl(part * sign, lot[1], f.price, inverse)
                lot[0] -= part * sign
                to_match -= part
                if not lot[0]:
                    p.lots.pop(0)
            p.cost += closing / f.price if inverse else closing * f.price
            p.quantity += closing
            left -= closing
            if not p.quantity:
                p.break_even_realised += p.cost if inverse else -p.cost
                p.cost, p.average = ZERO, ZERO
        if left:
            held = abs(p.quantity)
            if not held:
                p.average = f.price
            elif inverse:
                p.average = (held + abs(left)) / (held / p.average + abs(left) / f.price)
            else:
                p.average = (held * p.average + abs(left) * f.price) / (held + abs(left))
            p.cost += left / f.price if inverse else left * f.price
            p.quantity += left
            p.lots.append([left, f.price])
    return p


class NaiveBook:
    """All positions, every trade once; the rules of the position stage in their plainest form.

    Parameters
    ----------
    inverse_of : whether an instrument is inverse
    lateness_ns : how late a trade may be and still be folded in its place
    decimals : decimals an instrument's quantities are counted in, where they are checked
    """

    def __init__(self, inverse: dict[str, bool], lateness_ns: int = 2_000_000_000,
                 decimals: dict[str, int] | None = None) -> None:
        self._inverse = inverse
        self._decimals = decimals or {}
        self._lateness_ns = lateness_ns
        self.fills: dict[tuple[str, str], list[NaiveFill]] = {}
        self._by_id: dict[tuple[str, str], tuple[tuple[str, str], NaiveFill | None]] = {}
        self._last_ts: dict[tuple[str, str], int] = {}
        self.duplicates = self.late = self.refused = 0

    def apply(self, trade: Trade) -> str:
        """Take one trade in; return what became of it: applied, late, duplicate or refused."""
        key = (trade.account, trade.instrument)
        action = trade.action or "new"
        seen = self._by_id.get((trade.account, trade.trade_id))
        ts = parse_ts_ns(trade.ts_event)
        if action == "bust":
            return self._bust(trade, seen)
        scale = decimal_parts(trade.quantity, "quantity")[1]
        decimal_parts(trade.price, "price")
        most = self._decimals.get(trade.instrument, scale)
        if scale > most or trade.quantity * 10**most > 2**61:
            return self._refuse()
        quantity = trade.quantity if trade.side.lower() == "buy" else -trade.quantity
        if trade.quantity < 0 or (trade.quantity == 0) != (action == "funding") or (
                action == "funding" and not trade.fees):
            return self._refuse()
        if seen is not None:
            at, fill = seen
            same = fill is not None and (at, fill.quantity, fill.price, fill.ts) == (key, quantity, trade.price, ts)
            if same:
                self.duplicates += 1
                return "duplicate"
            if action in ("new", "funding") or (trade.ref_trade_id or trade.trade_id) != trade.trade_id:
                return self._refuse()
        if action == "correct":
            target = self._by_id.get((trade.account, trade.ref_trade_id or trade.trade_id))
            if target is None or target[1] is None:
                return self._refuse()
            target[1].busted = True
        last = self._last_ts.get(key, 0)
        late = action != "correct" and ts < last and last - ts > self._lateness_ns
        fees: dict[str, Decimal] = {}
        for fee in trade.fees or ():
            fees[fee.currency] = fees.get(fee.currency, ZERO) + fee.amount
        cash, costs = (fees, {}) if action == "funding" else ({}, fees)
        fill = NaiveFill(trade.trade_id, quantity, trade.price, ts, last if late else ts, costs, cash)
        self.fills.setdefault(key, []).append(fill)
        self._by_id[(trade.account, trade.trade_id)] = (key, fill)
        self._last_ts[key] = max(last, fill.effective_ts)
        self.late += late
        return "late" if late else "applied"

    def _bust(self, trade: Trade, seen: tuple[tuple[str, str], NaiveFill | None] | None) -> str:
        if seen is not None and seen[1] is None:
            self.duplicates += 1
            return "duplicate"
        target = self._by_id.get((trade.account, trade.ref_trade_id or trade.trade_id))
        if target is None or target[1] is None:
            return self._refuse()
        if target[1].busted:
            self.duplicates += 1
            return "duplicate"
        target[1].busted = True
        if (trade.ref_trade_id or trade.trade_id) != trade.trade_id:
            self._by_id[(trade.account, trade.trade_id)] = (target[0], None)
        return "applied"

    def _refuse(self) -> str:
        self.refused += 1
        return "refused"

    def position(self, account: str, instrument: str) -> NaivePosition:
        """Return a position, folded from all its fills by effective time, then arrival."""
        fills = [f for f in self.fills.get((account, instrument), ()) if not f.busted]
        with localcontext(PRECISION):
            return fold(sorted(fills, key=lambda f: f.effective_ts), self._inverse.get(instrument, False))

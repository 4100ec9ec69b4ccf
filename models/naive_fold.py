"""The obvious version of the position fold: dicts, lists and Decimal, one trade at a time.

It is the oracle: property tests compare the kernels with it, `deskrisk verify` replays the topics through it. It
shares no code with the kernels. Slow (about 20,000 trades a second) and meant to stay so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, localcontext
from typing import Any

from schemas.records import Trade
from schemas.units import decimal_parts, parse_ts_ns

PRECISION = Context(prec=40)
ZERO, ONE = Decimal(0), Decimal(1)
#: counted units that one fill may be of, and that fills may bring a position to
FILL_UNITS_MAX, HELD_UNITS_MAX = Decimal(2**61 - 1), Decimal(4_600_000_000_000_000_000)


#: from when on, ratio of a split, amount and currency of a dividend
Action = tuple[int, Decimal | None, Decimal | None, str]
Actions = dict[str, list[Action]]


@dataclass
class NaiveFill:
    """One fill of a position."""

    trade_id: str
    quantity: Decimal  # signed
    price: Decimal
    ts: int
    fees: dict[str, Decimal]
    funding: dict[str, Decimal] = field(default_factory=dict)
    busted: bool = False
    #: how many records came before the first one of its chain of corrections: it takes that one's place
    arrival: int = 0


@dataclass
class NaiveChain:
    """A trade and its corrections: the last one counts."""

    key: tuple[str, str]
    live: NaiveFill
    #: what was said under each id
    said: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)


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
    actions : of instruments, from when on: ratio of a split, or amount and currency of a dividend
    any_sign : whether an instrument may trade at or below zero, where prices are checked
    """

    def __init__(self, inverse: dict[str, bool], lateness_ns: int = 2_000_000_000,
                 decimals: dict[str, int] | None = None, actions: Actions | None = None,
                 any_sign: dict[str, bool] | None = None) -> None:
        self._inverse, self._any_sign = inverse, any_sign or {}
        self._decimals = decimals or {}
        self._lateness_ns = lateness_ns
        self._actions = {name: sorted(said, key=_by_time) for name, said in (actions or {}).items()}
        self.fills: dict[tuple[str, str], list[NaiveFill]] = {}
        self._by_id: dict[tuple[str, str], NaiveChain] = {}
        self._busts: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._arrivals = 0
        self._newest: dict[tuple[str, str], int] = {}
        #: no position is larger: what all its fills would come to if they were of one side
        self._most: dict[tuple[str, str], Decimal] = {}
        self.duplicates = self.late = self.refused = 0

    def apply(self, trade: Trade) -> str:
        """Take one trade in; return what became of it: applied, late, duplicate or refused."""
        key = (trade.account, trade.instrument)
        action = trade.action or "new"
        ts = parse_ts_ns(trade.ts_event)
        if action == "bust":
            return self._bust(trade)
        scale = decimal_parts(trade.quantity, "quantity")[1]
        decimal_parts(trade.price, "price")
        most = self._decimals.get(trade.instrument, scale)
        if scale > most or trade.quantity * 10**most > FILL_UNITS_MAX:
            return self._refuse()
        quantity = trade.quantity if trade.side.lower() == "buy" else -trade.quantity
        cash = action == "funding" or (action == "correct" and trade.quantity == 0 and bool(trade.fees))
        if trade.quantity < 0 or (trade.quantity == 0) != cash or (cash and not trade.fees):
            return self._refuse()
        own, ref = (trade.account, trade.trade_id), (trade.account, trade.ref_trade_id or trade.trade_id)
        if not (cash or self._has_price(trade, self._by_id.get(ref))):
            return self._refuse()
        chain, content = self._by_id.get(own), content_of(trade)
        if chain is not None and content in chain.said[trade.trade_id]:
            self.duplicates += 1
            return "duplicate"
        if own in self._busts or (chain is not None and (action != "correct" or ref != own)):
            return self._refuse()
        if not self._fits(key, quantity):
            return self._refuse()
        corrected: NaiveFill | None = None
        if action == "correct":
            chain = self._by_id.get(ref)
            if chain is None or chain.live.busted or (chain.live.quantity == 0) != cash:
                return self._refuse()
            corrected = chain.live
            corrected.busted = True
        fill = self._fill(trade, quantity, ts, cash, corrected)
        self.fills.setdefault(key, []).append(fill)
        self._most[key] = self._most.get(key, ZERO) + abs(quantity)
        if chain is None:
            chain = NaiveChain(key, fill)
        chain.live, chain.key = fill, key
        chain.said.setdefault(trade.trade_id, []).append(content)
        self._by_id[own] = chain
        newest = self._newest.get(key, 0)
        late = corrected is None and newest - ts > self._lateness_ns
        self._newest[key] = newest if late else max(newest, ts)
        self.late += late
        return "late" if late else "applied"

    def _has_price(self, trade: Trade, of: NaiveChain | None) -> bool:
        """Whether a fill has a price that its instrument may trade at; what was received at no cost has none."""
        if trade.price > 0 or self._any_sign.get(trade.instrument, True):
            return True
        free = trade.action == "receipt" or (trade.action == "correct" and of is not None and of.live.price == 0)
        return trade.price == 0 and free and not self._inverse.get(trade.instrument, False)

    def _fits(self, key: tuple[str, str], quantity: Decimal) -> bool:
        """Whether a position can be counted with one more fill, what it corrects still in it."""
        decimals, actions = self._decimals.get(key[1]), self._actions.get(key[1], [])
        if decimals is None:
            return True
        most = HELD_UNITS_MAX / 10**decimals
        larger = math.prod(max(ratio or ONE, ONE) for _, ratio, _, _ in actions)
        if self._most.get(key, ZERO) * larger + abs(quantity) <= most:
            return True
        held = (in_units_after(f, actions).quantity for f in self.fills.get(key, ()) if not f.busted)
        return abs(sum(held, quantity)) <= most

    def _fill(self, trade: Trade, quantity: Decimal, ts: int, cash: bool, corrected: NaiveFill | None) -> NaiveFill:
        fees: dict[str, Decimal] = {}
        for fee in trade.fees or ():
            fees[fee.currency] = fees.get(fee.currency, ZERO) + fee.amount
        self._arrivals += 1
        return NaiveFill(trade.trade_id, quantity, trade.price, ts, {} if cash else fees, fees if cash else {},
                         arrival=corrected.arrival if corrected else self._arrivals)

    def in_order(self, key: tuple[str, str]) -> list[NaiveFill]:
        """Return the fills of a position by trade time, then arrival; one that came too late by the newest one then.

        Those that are no longer there say nothing of what came too late.
        """
        newest, placed = 0, []
        live = [f for f in self.fills.get(key, ()) if not f.busted]
        for f in sorted(live, key=lambda f: f.arrival):
            late = newest - f.ts > self._lateness_ns
            placed.append((newest if late else f.ts, f.arrival, f))
            newest = newest if late else max(newest, f.ts)
        return [f for _, _, f in sorted(placed, key=lambda x: x[:2])]

    def _bust(self, trade: Trade) -> str:
        own, ref = (trade.account, trade.trade_id), (trade.account, trade.ref_trade_id or trade.trade_id)
        content = content_of(trade)
        if ref != own and (own in self._by_id or own in self._busts):
            if self._busts.get(own) != content:
                return self._refuse()
            self.duplicates += 1
            return "duplicate"
        chain = self._by_id.get(ref)
        if chain is None:
            return self._refuse()
        if chain.live.busted:
            if ref != own:
                return self._refuse()
            self.duplicates += 1
            return "duplicate"
        chain.live.busted = True
        if ref != own:
            self._busts[own] = content
        return "applied"

    def _refuse(self) -> str:
        self.refused += 1
        return "refused"

    def position(self, account: str, instrument: str) -> NaivePosition:
        """Return a position, folded from all its fills in order."""
        with localcontext(PRECISION):
            fills, actions = self.in_order((account, instrument)), self._actions.get(instrument, [])
            out = fold([in_units_after(f, actions) for f in fills], self._inverse.get(instrument, False))
            for k, (ts, _, amount, currency) in enumerate(actions):
                held = sum((in_units_after(f, actions[:k]).quantity for f in fills if f.ts < ts), ZERO)
                if amount is not None and held:
                    out.funding[currency] = out.funding.get(currency, ZERO) - held * amount
            return out


def _by_time(action: Action) -> tuple[int, bool]:
    """Order actions; a dividend is paid by what is held after the splits of its moment."""
    return action[0], action[1] is None


def in_units_after(f: NaiveFill, actions: list[Action]) -> NaiveFill:
    """Return a fill in the units after the splits that came after it."""
    for ts, ratio, _, _ in actions:
        if ratio is not None and f.ts < ts:
            f = replace(f, quantity=f.quantity * ratio, price=f.price / ratio)
    return f


def content_of(trade: Trade) -> tuple[Any, ...]:
    """Return what a record says: two that say the same are one, however they are written."""
    fees: dict[str, Decimal] = {}
    for fee in trade.fees or ():
        fees[fee.currency] = fees.get(fee.currency, ZERO) + fee.amount
    ref = trade.ref_trade_id or (trade.trade_id if trade.action in ("correct", "bust") else "")
    side = trade.side.lower() if trade.quantity else ""  # cash has none
    numbers = () if trade.action == "bust" else (trade.instrument, side, trade.quantity, trade.price)
    return (trade.action or "new", ref, parse_ts_ns(trade.ts_event), *numbers,
            frozenset((c, a) for c, a in fees.items() if a), *((text or "") for text in (
                trade.order_id, trade.trader, trade.counterparty, trade.venue)))

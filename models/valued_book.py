"""Position rows (records of the `positions` topic) as a valued matrix: shared by the risk stage and the gateway."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

import msgspec
import numpy as np

from models.contracts import Contracts
from models.figures import known_figures
from models.fixed_income import day_before
from models.market import ANY_TIME, Market, pair_currencies
from models.position_intake import LEFT, TAKEN, HeldPositions, PositionIntake
from models.position_scan import INTEGER_AT, NO_VALUE, scan_positions
from models.record_scan import ByteRows
from models.reference import FIRM, Reference
from models.rollup import FEE, FEE_SLOTS, FUNDED, MONEY, NET, POSITIONS, STALE, UNPRICED, RollUp
from models.trading_day import TradingDay
from schemas.codec import decoder_of
from schemas.instrument_terms import PAPER_CLASSES
from schemas.market import Surface, Touch
from schemas.records import Account, Instrument, Mark, Position

#: groupings beside the tree, after the levels
GROUPINGS = ("account", "dealer", "pm", "counterparty", "currency", "pair", "asset_class", "issuer", "sector")
#: how many of them, at the end, follow from the instrument alone
INSTRUMENT_GROUPINGS = 5
#: asset classes that are held outright: their value, not only their P&L, moves with the exchange rate
OUTRIGHT = frozenset({"equity", "bond", "money_market", "cash"})
SATURDAY = 5
_position = decoder_of(Position)


def other_terms(before: Instrument | None, now: Instrument) -> bool:
    """Return whether an instrument has other terms than before: a close of another day is none of them."""
    return before is None or msgspec.structs.replace(
        before, prior_close=now.prior_close, prior_close_date=now.prior_close_date,
        prior_close_splits=now.prior_close_splits) != now


class TakenPositions(NamedTuple):
    """What a slice of the `positions` topic changed."""

    #: rows of which only the position has changed, and when their last trades reached the broker, ms
    rows: np.ndarray
    ts_source: np.ndarray
    #: rows that are new, or may lie under other nodes: (place in the slice, row)
    filled: list[tuple[int, int]]
    #: what is no position: its place in the slice, and why
    refused: list[tuple[int, str]]

    def every_row(self) -> np.ndarray:
        """Return all rows that have a newer record."""
        return np.concatenate([self.rows, np.array([row for _, row in self.filled], np.int64)])


class ValuedBook:
    """Every position this process knows, valued on its latest snapshot and rolled up.

    Parameters
    ----------
    base_currency : the firm's; node figures of a fund are published in the fund's own
    levels : the hierarchy above the position, in order; the last one is the firm
    trading_day : when days begin; interest is counted by them
    surface_age_ns : what rests on older surfaces and curves is stale; None: however old they are
    """

    def __init__(self, base_currency: str, levels: tuple[str, ...], trading_day: TradingDay | None = None,
                 surface_age_ns: int | None = None) -> None:
        self.levels = levels
        self._trading_day = trading_day or TradingDay()
        self._day: date | None = None
        self.market = Market(base_currency)
        self.contracts = Contracts(self.market, surface_age_ns)
        self.rollup = RollUp(len(levels) + len(GROUPINGS), INSTRUMENT_GROUPINGS)
        self.keys: dict[str, int] = {}
        #: of every row: account and instrument
        self.names: list[str] = []
        self.positions = HeldPositions()
        self._intake = PositionIntake(self.rollup)
        self.reference = Reference(lambda account: 0)
        self.as_of: dict[int, int] = {}
        self.snapshot_id = 0
        self._currency_of: dict[str, str] = {}
        self._currencies_version = -1
        #: nodes by the currency that they are stated in, where it is not the firm's
        self._stated_in: dict[str, list[str]] = {}
        self._pending: set[int] = set()
        self._paper_rows: set[int] = set()
        self._rows_of_instrument: dict[str, list[int]] = {}
        self._rows_of_account: dict[str, list[int]] = {}

    # ---- what comes in --------------------------------------------------------------------------------------------
    def add_instrument(self, instrument: Instrument) -> None:
        """Take an instrument in; positions in it are valued anew. One that is known as it is costs nothing."""
        held = self.reference.instrument_records.get(instrument.instrument)
        if held == instrument:
            return
        self.reference.add_instrument(instrument)
        name, was_future = instrument.instrument, held is not None and held.asset_class == "future"
        if held is not None and held.asset_class != instrument.asset_class:
            self.contracts.forget(name)  # what its class before left behind is not what it is
        close = None if instrument.prior_close is None else float(instrument.prior_close)
        openings = self._openings_after(instrument.prior_close_date)
        pair = pair_currencies(name, instrument.currency) if instrument.asset_class == "fx" else None
        if pair != self.market.pairs.get(name):
            self.market.drop_pair(name)
            self.contracts.look_up_anew()
        if pair:
            self.market.set_pair(name, *pair, close, openings)
        elif instrument.asset_class == "cash":
            self.market.define_price(name, 1.0)
        else:
            self.market.set_prior_close(name, close, openings)
        under = self.reference.instrument_records.get(instrument.underlying or "")
        self.contracts.add(instrument, under is not None and under.asset_class == "future")
        if was_future != (instrument.asset_class == "future"):
            self.contracts.underlying_is_future(name, not was_future)
        if other_terms(held, instrument):
            for row in self._rows_of_instrument.get(name, ()):
                self._fill(row, self.positions[row])

    def _openings_after(self, closed: str | None) -> tuple[int, int]:
        """Return the openings, begin and end in ns, that a close of a date is of the day before of.

        Days without a close of their own lie between: the openings of a weekend, and the first one after it.
        """
        if closed is None:
            return ANY_TIME
        first = date.fromisoformat(closed) + timedelta(days=1)
        last = first
        while last.weekday() >= SATURDAY:
            last += timedelta(days=1)
        return self._trading_day.begin_of(first), self._trading_day.begin_of(last + timedelta(days=1))

    def add_surface(self, surface: Surface) -> None:
        """Take market inputs in (volatilities, curve, dividends)."""
        self.contracts.add_surface(surface)

    def remove_surface(self, name: str) -> None:
        """Forget the market inputs of an underlying or a currency."""
        self.contracts.remove_surface(name)

    def add_touch(self, touch: Touch) -> None:
        """Take in that the barrier of an option was touched, or that it was not."""
        self.contracts.set_touched(touch.instrument, touch.touched)

    def add_account(self, account: Account) -> None:
        """Take an account in. One that is known as it is costs nothing."""
        if self.reference.account_records.get(account.account) == account:
            return
        self.reference.add_account(account)
        for row in self._rows_of_account.get(account.account, ()):
            self._fill(row, self.positions[row])

    def add_mark(self, mark: Mark) -> None:
        """Take a mark in; rows are valued at the next `revalue`."""
        half_spread = math.nan if mark.bid is None or mark.ask is None else 0.5 * (mark.ask - mark.bid)
        self.market.set_mark(mark.instrument, mark.mid if mark.mid is not None else mark.last,
                             mark.quality in ("stale", "none"), half_spread)
        self.snapshot_id = max(self.snapshot_id, mark.window_end)

    def add_position(self, position: Position, shard: int = 0) -> int:
        """Take a position row in if it is newer than the one held; return its row, or -1 where it is not."""
        key = f"{position.account}|{position.instrument}"
        row = self.keys.get(key)
        if row is None:
            row = self.keys[key] = self.rollup.new_row()
            self.names.append(key)
            self._rows_of_instrument.setdefault(position.instrument, []).append(row)
            self._rows_of_account.setdefault(position.account, []).append(row)
        elif self.rollup.rows["live"][row] and not self._intake.is_newer(row, position):
            return -1
        self.positions.put(row, position)
        self.rollup.rows["shard"][row] = shard
        self._note_as_of(position.as_of.partition, position.as_of.offset)
        self._fill(row, position)
        return row

    def add_positions(self, values: Sequence[bytes | None], shard: int = 0) -> TakenPositions:
        """Take a slice of the `positions` topic in; what is no position is left out and named."""
        rows = ByteRows.of(values)
        scanned = scan_positions(rows)
        outcome, row_of = self._intake.take(scanned, rows.buffer, shard, self.market.currencies)
        fast = np.flatnonzero(outcome == TAKEN)
        taken, as_of = row_of[fast].tolist(), scanned.integers[fast]
        self.positions.replace(taken, rows.pick(fast))
        for partition, offset in as_of[:, (INTEGER_AT["as_of.partition"], INTEGER_AT["as_of.offset"])].tolist():
            self._note_as_of(partition, offset)
        self._pending.update(taken)
        out = TakenPositions(row_of[fast], as_of[:, INTEGER_AT["ts_source"]], [], [])
        for k in np.flatnonzero((outcome == LEFT) & (scanned.status != NO_VALUE)).tolist():
            try:
                row = self.add_position(_position.decode(rows[k]), shard)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                out.refused.append((k, str(error)))
            else:
                if row >= 0:
                    out.filled.append((k, row))
        return out

    def _note_as_of(self, partition: int, offset: int) -> None:
        if offset > self.as_of.get(partition, -1):
            self.as_of[partition] = offset

    def rows_of(self, account: str) -> list[int]:
        """Return the rows of an account."""
        return self._rows_of_account.get(account, [])

    def rows_in(self, instrument: str) -> list[int]:
        """Return the rows in an instrument."""
        return self._rows_of_instrument.get(instrument, [])

    def offset_of(self, row: int) -> int:
        """Return the last record of the `trades` topic that a row includes."""
        return int(self._intake.held["offset"][row])

    def remove(self, key: str) -> None:
        """Take a position away (its row was withdrawn, or its shard went elsewhere)."""
        row = self.keys.get(key)
        if row is not None and self.rollup.rows["live"][row]:
            self.rollup.rows["live"][row] = 0
            self._pending.add(row)

    def remove_shard(self, shard: int) -> None:
        """Take all positions of a shard away."""
        rows = np.flatnonzero((self.rollup.rows["shard"][: self.rollup.count] == shard)
                              & (self.rollup.rows["live"][: self.rollup.count] != 0))
        self.rollup.rows["live"][rows] = 0
        self._pending.update(rows.tolist())

    def _fill(self, row: int, position: Position) -> None:
        instrument = self.reference.instrument_records.get(position.instrument)
        account = self.reference.account_records.get(position.account)
        market = self.market
        self._fill_position(row, position)
        r = self.rollup.rows[row]
        r["instrument"] = market.instrument(position.instrument)
        r["currency"] = market.currency(position.currency or "?")
        quanto = float(instrument.quanto_rate) if instrument and instrument.quanto_rate is not None else 1.0
        r["multiplier"] = float(instrument.multiplier) * quanto if instrument else np.nan
        r["inverse"] = bool(instrument and instrument.inverse)
        r["interest"] = r["accrued_before"] = 0.0
        if instrument and instrument.asset_class in PAPER_CLASSES:
            self._paper_rows.add(row)
            self._fill_interest(row, position)
        else:
            self._paper_rows.discard(row)
        r["outright"] = bool(instrument and instrument.asset_class in OUTRIGHT)
        r["live"] = 1
        self._fill_fees(row, position)
        self.rollup.place(row, self._nodes_of(position, instrument, account))
        self._intake.hold(row, position, row in self._paper_rows)
        self._pending.add(row)

    def _fill_position(self, row: int, position: Position) -> None:
        r = self.rollup.rows[row]
        r["quantity"] = float(position.quantity)
        r["average_price"] = _number(position.average_price)
        r["realised_pnl"] = _number(position.realised_pnl)
        r["opening_quantity"] = float(position.opening_quantity)
        r["opening_price"] = _number(position.opening_price)
        r["opening_realised_pnl"] = _number(position.opening_realised_pnl)
        r["opening_ts"] = position.opening_ts
        r["last_ts_event"] = position.last_ts_event

    def _fill_interest(self, row: int, position: Position) -> None:
        """Fill what a unit held since the day of a position began has earned: unknown before there is a time."""
        earned, before = np.nan, 0.0
        if self._day is not None and position.opening_ts:
            since = day_before(self._trading_day.date_of(position.opening_ts))
            earned, before = self.contracts.paper.interest(position.instrument, since, self._day)
        self.rollup.rows["interest"][row], self.rollup.rows["accrued_before"][row] = earned, before

    def _begin_day(self, day: date) -> None:
        self._day = day
        for row in self._paper_rows:
            self._fill_interest(row, self.positions[row])
        self._pending.update(self._paper_rows)

    def _fill_fees(self, row: int, position: Position) -> None:
        slots = self.rollup.paid[row]
        slots["currency"] = -1
        paid = [(currency, kind, amount, before.get(currency, 0.0)) for kind, amounts, before in (
            (FEE, position.fees, position.opening_fees), (FUNDED, position.funding, position.opening_funding))
            for currency, amount in amounts.items()]
        for k, (currency, kind, amount, earlier) in enumerate(paid[:FEE_SLOTS]):
            slots[k] = (amount, earlier, self.market.currency(currency), kind)
        if len(paid) > FEE_SLOTS:  # what there is no room for is not left out: the position's P&L is unknown
            slots["amount"][-1] = np.nan

    def _nodes_of(self, position: Position, instrument: Instrument | None, account: Account | None) -> list[int]:
        node = self.rollup.node
        out = []
        for level in self.levels:
            name = FIRM if level == FIRM else (account and account.under(level)) or getattr(position, level, None)
            out.append(node(name if level == FIRM else f"{level}:{name}") if name else -1)
        pair = None
        if instrument is not None and instrument.asset_class == "fx":
            pair = instrument.instrument
        values = (position.account, account.dealer if account else None, account.pm if account else None,
                  account.counterparty if account else None,
                  position.currency, pair, instrument.asset_class if instrument else None,
                  instrument.issuer if instrument else None, instrument.sector if instrument else None)
        for group, value in zip(GROUPINGS, values, strict=True):
            out.append(node(f"{group}:{value}") if value else -1)
        return out

    # ---- what goes out --------------------------------------------------------------------------------------------
    def value_pending(self) -> np.ndarray:
        """Value the rows whose position changed; return which."""
        pending, self._pending = self._pending, set()
        which = np.fromiter(pending, np.int64, len(pending))
        if pending:
            self.rollup.value(which, self.market)
        return which

    def revalue(self, now_ns: int | None = None) -> np.ndarray:
        """Value every row that the marks since the last call touch, and those whose position changed; return which.

        Parameters
        ----------
        now_ns : options and bonds are priced as of this time; None: they keep the sensitivities they have
        """
        if now_ns is not None:
            day = self._trading_day.date_of(now_ns)
            if day != self._day:
                self._begin_day(day)
            self.contracts.refresh(now_ns, day)
        self._touch_stated_in(np.flatnonzero(self.market.currency_changed))
        return np.concatenate([self.rollup.value_changed(self.market), self.value_pending()])

    def _touch_stated_in(self, currencies: np.ndarray) -> None:
        """Have the nodes published anew that are stated in currencies whose rates moved, whatever lies under them."""
        self._look_currencies_up()
        if not len(currencies) or not self._stated_in:
            return
        names = list(self.market.currencies)
        for currency in currencies.tolist():
            for node in self._stated_in.get(names[currency], ()) if currency < len(names) else ():
                index = self.rollup.node_index.get(node)
                if index is not None:
                    self.rollup.touched[index] = 1

    def _look_currencies_up(self) -> None:
        if self._currencies_version == self.reference.version:
            return
        self._currencies_version = self.reference.version
        found: dict[str, set[str]] = {}
        for account in self.reference.account_records.values():
            for name in self.nodes_above(account):
                found.setdefault(name, set()).add(account.base_currency)
        before = self._currency_of
        self._currency_of = {name: next(iter(c)) for name, c in found.items() if len(c) == 1 and name != FIRM}
        self._stated_in = {}
        for name, currency in self._currency_of.items():
            if currency != self.market.base_currency:
                self._stated_in.setdefault(currency, []).append(name)
        for changed, _ in self._currency_of.items() ^ before.items():
            index = self.rollup.node_index.get(changed)
            if index is not None:
                self.rollup.touched[index] = 1

    def currency_of(self, node: int) -> str:
        """Return the currency a node's figures are published in: of its accounts where they share one, else the firm's.

        It follows from the accounts that lie under the node, whatever record came last.
        """
        self._look_currencies_up()
        return self._currency_of.get(self.rollup.node_names[node], self.market.base_currency)

    def scale_of(self, node: int) -> float:
        """Return what a figure in the firm's base currency is multiplied by to be in a node's own; NaN: no rate."""
        return 1.0 / float(self.market.rate[self.market.currency(self.currency_of(node))])

    def without_rate(self, node: int) -> str | None:
        """Return the currency a node is stated in where no rate is known of it; None: there is one."""
        currency = self.currency_of(node)
        rate = float(self.market.rate[self.market.currency(currency)])
        return currency if rate != rate else None

    def nodes_above(self, account: Account) -> list[str]:
        """Return the names of the nodes of the hierarchy that an account lies under."""
        return [FIRM if level == FIRM else f"{level}:{value}" for level in self.levels
                if (value := FIRM if level == FIRM else account.under(level))]

    def expected_funding_per_day(self, row: int) -> float | None:
        """Return what a perpetual pays in funding a day (> 0) at the present rate, in the firm's base currency.

        None: it is none, it has no value, or its rate or interval is not known. What is booked is what was charged.
        """
        name = self.positions[row].instrument
        record = self.reference.instrument_records.get(name)
        if record is None or record.asset_class != "perpetual" or self.rollup.contribution[row, UNPRICED]:
            return None
        surface = self.contracts.surfaces.get(name) or self.contracts.surfaces.get(record.underlying or "")
        if surface is None or surface.funding_rate is None or not surface.funding_interval_hours:
            return None
        return float(self.rollup.contribution[row, NET]) * surface.funding_rate * 24.0 / surface.funding_interval_hours

    def figures(self, node: int) -> np.ndarray:
        """Return a node's sums in its own currency (counts and quantity as they are); NaN without a rate."""
        return self.figures_of([node])[0]

    def figures_of(self, nodes: Sequence[int]) -> np.ndarray:
        """Return `figures` of several nodes: float64[nodes, metrics]."""
        sums = self.rollup.nodes[nodes]
        index = self.market.currency
        of = [index(self.currency_of(node)) for node in nodes]
        sums[:, :MONEY] = known_figures(sums[:, :MONEY] / self.market.rate[of][:, None])
        # what is stated at a stale rate is stale, whatever its own currency
        sums[:, STALE] = np.where(self.market.rate_stale[of] != 0, sums[:, POSITIONS], sums[:, STALE])
        return sums


def _number(value: float | None) -> float:
    return np.nan if value is None else value

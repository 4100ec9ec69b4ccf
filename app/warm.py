"""Compile the kernels before they are needed: at install, not while a group waits for a worker."""

from __future__ import annotations

import gc
from decimal import Decimal

import numpy as np

from models import marks as mk
from models.ladder import COLUMNS, ladder_lines
from models.position_state import PartitionPositions
from models.position_window import absorb_half_chain, evict_oldest
from models.quote_columns import decode_quotes
from models.reference import Reference
from models.risk.live import RiskModels
from models.risk.scenarios import History
from models.trade_columns import resolve_trades
from models.trade_decode import decode_trades
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.codec import TICK_DTYPE, pack_ticks
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position, Surface, VolSlice


def settle_collector() -> None:
    """Leave alone what is there at start, and look less often: what comes is many, short-lived and without cycles.

    The defaults would scan them all day.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def warm_kernels() -> None:
    """Run every kernel once on a few records."""
    reference = Reference(lambda account: 0)
    instrument = Instrument(instrument="X", asset_class="fx", currency="USD", quantity_increment=Decimal(1))
    account = Account(account="A", book="B", desk="D", strategy="S", fund="F")
    reference.add_instrument(instrument)
    reference.add_account(account)
    arrays = reference.arrays()
    text = ('{"trade_id":"T%d","account":"A","instrument":"X","side":"%s","quantity":"10","price":"1.5",'
            '"ts_event":%d%s}')
    values: list[bytes | None] = [
        (text % (1, "buy", 10**18, "")).encode(), (text % (2, "sell", 10**18 + 5, "")).encode(),
        (text % (3, "buy", 10**18 + 1, "")).encode(), (text % (4, "buy", 10**18 + 9, ',"venue":"\\u00e9"')).encode()]
    decoded = decode_trades(values)
    resolve_trades(decoded.buffer, decoded.rows, arrays)
    positions = PartitionPositions(0)
    positions.apply(decoded.rows, arrays)
    positions.open_position(0, 0, 5, 1.5, 10**18 + 2, arrays)
    blob, bounds = positions.pack(positions.take_dirty())
    seq, fills, flags = positions.take_fills()
    again = PartitionPositions(0)
    again.load([blob[bounds[0] : bounds[1]]], [(0, 0)])
    again.load_fills(0, [(seq, fills, flags)])
    absorb_half_chain(again.arrays, 0)
    evict_oldest(again.arrays, 1)
    _warm_marks(arrays)
    _warm_rollup(instrument, account)


def _warm_marks(arrays: object) -> None:
    block = np.zeros(1, TICK_DTYPE)
    block["instrument"], block["ts_event"], block["bid"], block["ask"] = b"X", 10**18, 1.0, 1.1
    quotes = decode_quotes([pack_ticks(block), b'{"instrument":"X","bid":"1.0","ask":1.1,"ts_event":1}'],
                           arrays.instruments, arrays.instrument_known)  # type: ignore[attr-defined]
    marks = mk.empty_marks(4)
    mk.apply_quotes(marks, quotes.rows, arrays.price_any_sign, 1, 1)  # type: ignore[attr-defined]
    mk.close_window(marks, 1, 1, np.ones(4, np.int64), np.zeros(4, np.int64))


def _warm_rollup(instrument: Instrument, account: Account) -> None:
    book = ValuedBook("USD", ("book", "desk", "strategy", "fund", "firm"))
    book.add_instrument(instrument)
    book.add_account(account)
    book.add_mark(Mark(instrument="X", window_end=1, ts_event=1, bid=1.0, ask=1.1, mid=1.05, last=None,
                       quality="good"))
    book.add_position(Position(account="A", instrument="X", quantity="5", average_price=1.0, realised_pnl=0.0,
                               fees={}, currency="USD", trades=1, last_ts_event=1,
                               fifo=Fifo(0.0, 1.0, 1), break_even_price=1.0, as_of=AsOf(0, 1)))
    book.revalue(10**18)
    book.rollup.recount()
    book.add_instrument(Instrument(instrument="O", asset_class="option", currency="USD", underlying="X", right="call",
                                   strike=Decimal(1), expiry="2033-01-01", style="american"))
    book.add_surface(Surface(underlying="USD", ts_event=1, rates=[(1.0, 0.03)]))
    book.add_surface(Surface(underlying="X", ts_event=1, dividends=[], vols=[
        VolSlice(expiry="2033-01-01", strikes=[1.0], vols=[0.2])]))
    book.add_position(Position(account="A", instrument="O", quantity="5", average_price=1.0, realised_pnl=0.0,
                               fees={}, currency="USD", trades=1, last_ts_event=1,
                               fifo=Fifo(0.0, 1.0, 1), break_even_price=1.0, as_of=AsOf(0, 2)))
    book.revalue(10**18)
    moves = np.random.default_rng(1).normal(0, 0.01, (40, 1))
    models = RiskModels(book, book.contracts, History(("X",), moves), INSTRUMENT_GROUPINGS)
    models.run(10**18)
    models.update_rows(np.array([0, 1]))
    ladder_lines(book.rollup.rows, 2, book.rollup.own, book.rollup.contribution, np.zeros(2, np.int64),
                 np.zeros(2, np.int64), np.empty((1, COLUMNS)))

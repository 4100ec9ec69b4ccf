"""Compile the kernels before they are needed: at install, not while a group waits for a worker."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numba
import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from models import marks as mk
from models import record_scan as rs
from models.gate.book import GateBook
from models.ladder import LadderLines
from models.position_averages import other_averages
from models.position_order import check_half_chain, evict_oldest
from models.position_state import PartitionPositions, find_slot
from models.position_terms import follow_splits, held
from models.position_window import ACTION_DTYPE
from models.pricing.black_scholes import option_prices
from models.quote_columns import decode_quotes
from models.reference import Reference
from models.risk.factor_history import History
from models.risk.live import RiskModels
from models.trade_columns import ReferenceArrays, resolve_trades
from models.trade_decode import decode_trades
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.codec import TICK_DTYPE, encode, pack_ticks
from schemas.market import Surface, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, Mark, Order, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")
NOW_NS = 10**18
HOME = Path(__file__).resolve().parent.parent


def warm_kernels(*parts: str) -> None:
    """Run every kernel of these parts (all of them without a name) once on a few records.

    Each kernel meets the kinds of arrays that a running system gives it. It is compiled anew for memory that may not be
    written (what a broker sent) and for columns of several rows that do not lie side by side: both are here.
    ``tests/integration/test_first_run.py`` holds that nothing is left.
    """
    for name in parts or PARTS:
        PARTS[name]()


def compile_kernels(*parts: str) -> None:
    """Compile what these parts (all of them without a name) lack in the cache, in a process for each; note it there."""
    wanted = parts or tuple(PARTS)
    with ProcessPoolExecutor(len(wanted), get_context("spawn"), os.nice, (10,)) as pool:  # a page may be live
        for done in [pool.submit(PARTS[name]) for name in wanted]:
            done.result()
    if not parts:
        warm_kernels()  # where two processes kept a kernel at the same time, one of its kinds may be missing
    for name in wanted:
        _note(name).parent.mkdir(parents=True, exist_ok=True)
        _note(name).write_text(_sources())


def missing_parts() -> list[str]:
    """Return the parts whose kernels are not known to be compiled from the present sources."""
    return [name for name in PARTS if not _note(name).is_file() or _note(name).read_text() != _sources()]


def _note(part: str) -> Path:
    return Path(numba.config.CACHE_DIR) / "compiled" / part


@functools.cache
def _sources() -> str:
    """Name the state of all that kernels may be compiled from."""
    digest = hashlib.sha256(numba.__version__.encode())
    for package in ("models", "schemas"):
        for path in sorted((HOME / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _instrument() -> Instrument:
    return Instrument(instrument="X", asset_class="fx", currency="USD", quantity_increment=Decimal(1),
                      margin_initial=Decimal("0.1"), issuer="I")


def _account() -> Account:
    return Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**9))


def _reference_arrays() -> ReferenceArrays:
    reference = Reference(lambda account: 0)
    reference.add_instrument(_instrument())
    reference.add_account(_account())
    return reference.arrays()


def _sent(values: list[bytes]) -> rs.ByteRows:
    """Return values as they lie in what a broker sends: within one buffer that is not ours to write."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    for k, value in enumerate(values):
        builder.append(k, 1, None, value, [])
    buffer = np.frombuffer(bytes(builder.build()), np.uint8)
    rows = np.empty((4, len(values)), np.int64)
    if not rs.scan_records(buffer, rs.HEADER_BYTES, len(buffer), *rows):
        raise RuntimeError("a record batch made here was not read whole")
    return rs.ByteRows(buffer, rows[0], rows[1])


def _warm_positions() -> None:
    arrays = _reference_arrays()
    text = ('{"trade_id":"T%d","account":"A","instrument":"X","side":"%s","quantity":"10","price":"1.5",'
            '"ts_event":%d%s}')
    values: list[bytes] = [
        (text % (1, "buy", NOW_NS, "")).encode(), (text % (2, "sell", NOW_NS + 5, "")).encode(),
        (text % (3, "buy", NOW_NS + 1, "")).encode(), (text % (4, "buy", NOW_NS + 9, ',"venue":"\\u00e9"')).encode()]
    plain = decode_trades(_sent(values[:3]))
    resolve_trades(plain.buffer, plain.rows, arrays)
    decoded = decode_trades([*values])
    resolve_trades(decoded.buffer, decoded.rows, arrays)
    positions = PartitionPositions(0)
    positions.apply(decoded.rows, arrays)
    positions.open_position(0, 0, 5, 1.5, NOW_NS + 2, arrays)
    positions.takes_statement(0, 0, NOW_NS + 2)
    positions.roll(0, NOW_NS + 1)
    follow_splits(positions, np.array([(NOW_NS, 2, 1, 2.0, 1)], ACTION_DTYPE), np.array([0, 1]))
    held(positions, 0, NOW_NS + 3)
    find_slot(positions.arrays, 0, 0)
    other_averages(positions.arrays, np.zeros(1, np.int32), np.empty(1), np.empty(1))
    blob, bounds = positions.pack(positions.take_dirty())
    seq, fills, content, flags = positions.take_fills()
    again = PartitionPositions(0)
    again.load([blob[bounds[0] : bounds[1]]], [(0, 0)])
    again.load_fills(0, [(seq, fills.tobytes(), content.tobytes() + flags.tobytes())])
    check_half_chain(again.arrays, 0)
    evict_oldest(again.arrays, 1)


def _warm_marks() -> None:
    arrays = _reference_arrays()
    block = np.zeros(1, TICK_DTYPE)
    block["instrument"], block["ts_event"], block["bid"], block["ask"] = b"X", NOW_NS, 1.0, 1.1
    packed, text = pack_ticks(block), b'{"instrument":"X","bid":"1.0","ask":1.1,"ts_event":1}'
    marks, terms = mk.empty_marks(4), np.zeros(4, mk.TERMS_DTYPE)
    for values in ([packed, text], _sent([packed, text]), _sent([text, text]), _sent([packed, packed])):
        quotes = decode_quotes(values, arrays.instruments, arrays.instrument_known)
        mk.apply_quotes(marks, quotes.rows, terms, 1, 1)
    mk.close_window(marks, 1, 1, terms, np.zeros(4, np.int64))


def _held(instrument: str, offset: int) -> Position:
    return Position(account="A", instrument=instrument, quantity="5", average_price=1.0, realised_pnl=0.0, fees={},
                    currency="USD", trades=1, last_ts_event=1, fifo=Fifo(0.0, 1.0, 1), break_even_price=1.0,
                    as_of=AsOf(0, offset))


def _warm_rollup() -> ValuedBook:
    book = ValuedBook("USD", LEVELS)
    book.add_instrument(_instrument())
    book.add_account(_account())
    book.add_mark(Mark(instrument="X", window_end=1, ts_event=1, bid=1.0, ask=1.1, mid=1.05, last=None,
                       quality="good"))
    for offset in (1, 2):  # the first one opens the row, the second one the kernel takes
        book.add_positions([encode(_held("X", offset))])
    book.revalue(NOW_NS)
    book.rollup.recount()
    return book


def _warm_options() -> ValuedBook:
    book = _warm_rollup()
    book.add_instrument(Instrument(instrument="Y", asset_class="equity", currency="USD"))
    for name, under, style, barrier in (("O", "X", "american", None), ("P", "X", "european", None),
                                        ("Q", "Y", "european", None), ("B", "X", "european", Decimal("0.9")),
                                        ("N", "Y", "european", None)):
        book.add_instrument(Instrument(instrument=name, asset_class="option", currency="USD", underlying=under,
                                       right="call", strike=Decimal(1), expiry="2033-01-01",
                                       model="bachelier" if name == "N" else None, style=style, barrier=barrier,  # type: ignore[arg-type]
                                       barrier_kind="down_and_out" if barrier else None))
    for name, mid in (("Y", 1.0), ("Q", 0.2), ("N", 0.2)):  # without a surface its own mark implies the volatility
        book.add_mark(Mark(instrument=name, window_end=1, ts_event=1, bid=mid, ask=mid, mid=mid, last=None,
                           quality="good"))
    book.add_surface(Surface(underlying="Y", ts_event=1, dividends=[]))
    book.add_surface(Surface(underlying="USD", ts_event=1, rates=[(1.0, 0.03)]))
    book.add_surface(Surface(underlying="X", ts_event=1, dividends=[], vols=[
        VolSlice(expiry="2033-01-01", strikes=[1.0], vols=[0.2])]))
    for k, name in enumerate(("O", "P", "Q", "B", "N"), start=2):
        book.add_position(_held(name, k))
    book.revalue(NOW_NS)
    return book


def _warm_ladder() -> None:
    book, lines = _warm_options(), LadderLines()
    lines.put(0, 0, 1)
    lines.add_up(np.zeros(1, np.int64), book.rollup)


def _warm_models() -> None:
    book = _warm_options()
    one = np.ones(1)
    option_prices(one, one, one, one, one, one, one, np.empty(1))  # what the demo's market quotes
    moves = np.random.default_rng(1).normal(0, 0.01, (40, 1))
    models = RiskModels(book, book.contracts, History(("X",), moves), INSTRUMENT_GROUPINGS)
    models.run(NOW_NS)
    models.update_rows(np.array([0, 1]))


def _warm_gate() -> None:
    gate = GateBook("USD", LEVELS)
    gate.add_instrument(_instrument())
    gate.add_account(_account())
    limits = {"gross": "fund:F", "order_quantity": "fund:F", "order_value": "fund:F", "margin": "fund:F",
              "concentration": "fund:F", "message_count": "fund:F", "price_drift": "firm"}
    for metric, node in limits.items():
        gate.add_limit(Limit(limit_id=metric, node=node, metric=metric, limit=Decimal(10**9), version=1,
                             by="deskrisk", reason="warm-up"))
    gate.book.add_mark(Mark(instrument="X", window_end=NOW_NS, ts_event=NOW_NS, bid=1.0, ask=1.1, mid=1.05, last=None,
                            quality="good"))
    gate.set_price("X", 1.0, 1.1, 1.05, None, NOW_NS, True)
    gate.add_position(_held("X", 1))
    gate.positions_hold(NOW_NS)
    gate.refresh(NOW_NS)
    order = Order(order_id="1", account="A", trader="T", instrument="X", side="buy", type="limit",
                  quantity=Decimal(1), price=Decimal("1.05"), ts_event=NOW_NS)
    verdict = gate.decide(order, NOW_NS)
    if verdict.outcome != "accept":  # a refused order reserves nothing: kernels would be left out
        raise RuntimeError(f"the order of the warm-up was refused: {verdict.reasons}")
    gate.release("1")
    gate.decide(msgspec.structs.replace(order, action="cancel"), NOW_NS)


#: what is compiled side by side, and what each role starts with
PARTS: dict[str, Callable[[], object]] = {
    "positions": _warm_positions, "marks": _warm_marks, "gateway": _warm_ladder, "risk": _warm_models,
    "gate": _warm_gate}
#: with these a page shows positions and prices; models and the gate may follow
PAGE_PARTS = ("positions", "marks", "gateway")

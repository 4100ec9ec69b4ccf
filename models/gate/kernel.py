"""One kernel for every control of an order: all reasons, each with what was measured against which limit of which node.

Called one order at a time (an index into the order ring, the state's addresses in a table: no array is boxed) or for
a batch. An order is counted and remembered whatever its outcome; what it may trade is reserved by the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from models.gate import state as gs
from models.gate.node_checks import (
    ROUNDED,
    check_nodes,
    check_shares,
    fail,
    levered_of,
    margin_of,
    node_at,
    price_of_unit,
    reference_of,
)
from models.jit import allocating_kernel, hot_kernel, inline_kernel
from schemas.controls import Check

(INVALID, UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT, HALTED, REDUCING_ONLY, NOT_PERMITTED, RESTRICTED, NO_REFERENCE,
 STALE_PRICE, STALE_POSITION, COLLAR, DRIFT, DUPLICATE, SELF_MATCH, SHORT_BAN, LOCATE, UPTICK, POSITION_LONG,
 POSITION_SHORT) = (int(c) for c in (
     Check.INVALID_ORDER, Check.UNKNOWN_ACCOUNT, Check.UNKNOWN_INSTRUMENT, Check.HALTED, Check.REDUCING_ONLY,
     Check.TRADER_NOT_PERMITTED, Check.RESTRICTED, Check.NO_REFERENCE_PRICE, Check.STALE_PRICE, Check.STALE_POSITION,
     Check.PRICE_COLLAR, Check.PRICE_DRIFT, Check.DUPLICATE_ORDER, Check.SELF_MATCH, Check.SHORT_SALE_BAN,
     Check.SHORT_SALE_LOCATE, Check.UPTICK, Check.POSITION_LONG, Check.POSITION_SHORT))
_NODES, _SHARES, _WINDOWS = gs.ACCOUNT_NODES + gs.ORDER_NODES, gs.SHARES, gs.WINDOWS
_ACCOUNT, _INSTRUMENT, _POSITION, _NODE = gs.ACCOUNT, gs.INSTRUMENT, gs.POSITION, gs.NODE
_FIGURE_MAX = gs.ORDER_FIGURE_MAX
_RATE, _ORDER, _RESULT, _SETTINGS = gs.RATE, gs.ORDER, gs.RESULT, gs.SETTINGS
_ACCOUNT_BYTES, _INSTRUMENT_BYTES, _POSITION_BYTES, _NODE_BYTES, _RATE_BYTES, _ORDER_BYTES, _SETTINGS_BYTES = (
    row.itemsize for row in (gs.ACCOUNT, gs.INSTRUMENT, gs.POSITION, gs.NODE, gs.RATE, gs.ORDER, gs.SETTINGS))
_NM, _EFFECTS = gs.NM, len(gs.EFFECTS)


@intrinsic
def _pointer(_context: Any, _address: Any) -> Any:
    """Turn an address into a pointer."""
    return types.voidptr(types.int64), lambda c, b, s, a: b.inttoptr(a[0], ir.IntType(8).as_pointer())


@inline_kernel
def find_position(positions: Any, slots: np.ndarray, count: np.ndarray, account: int, instrument: int,
                  add: bool) -> int:
    """Return the row of a position by open addressing, -1 where there is none (or no room)."""
    n = slots.shape[0]
    h = (account * 73_856_093 ^ instrument * 19_349_663) % n
    while slots[h] >= 0:
        r = slots[h]
        if positions[r].account == account and positions[r].instrument == instrument:
            return r
        h += 1
        if h == n:
            h = 0
    if not add or count[0] >= positions.shape[0] - 1:
        return -1
    r = count[0]
    count[0] += 1
    positions[r].account, positions[r].instrument = account, instrument
    slots[h] = r
    return r


@hot_kernel
def _check(a: Any, ins: Any, positions: Any, slots: Any, count: Any,
           nodes: Any, rates: Any, o: Any, out: Any, cfg: Any,
           account_capacity: int, instrument_capacity: int) -> None:
    """Evaluate one order; ``a`` and ``ins`` are whole columns, ``o`` and ``out`` single rows."""
    out.hard, out.soft = np.uint64(0), np.uint64(0)
    out.position = -1
    for k in range(_EFFECTS):
        out.effect[k] = np.nan
    bad = False
    if not (0.0 < o.quantity <= _FIGURE_MAX) or not (o.side == 1.0 or o.side == -1.0):
        fail(out, INVALID, False, o.quantity, 0.0, -1)
        bad = True
    if o.market == 0 and not (-_FIGURE_MAX <= o.price <= _FIGURE_MAX):
        fail(out, INVALID, False, o.price, 0.0, -1)
        bad = True
    if o.stop != 0 and not (-_FIGURE_MAX <= o.stop_price <= _FIGURE_MAX):
        fail(out, INVALID, False, o.stop_price, 0.0, -1)
        bad = True
    if o.account < 0 or o.account >= account_capacity or a[max(o.account, 0)].known == 0:
        fail(out, UNKNOWN_ACCOUNT, False, 0.0, 0.0, -1)
        bad = True
    if o.instrument < 0 or o.instrument >= instrument_capacity or ins[max(o.instrument, 0)].known == 0:
        fail(out, UNKNOWN_INSTRUMENT, False, 0.0, 0.0, -1)
        bad = True
    if not bad:
        acc, i = a[o.account], ins[o.instrument]
        if i.positive != 0 and o.market == 0 and not o.price > 0.0:  # its execution could not be booked
            fail(out, INVALID, False, o.price, 0.0, -1)
        if i.positive != 0 and o.stop != 0 and not o.stop_price > 0.0:
            fail(out, INVALID, False, o.stop_price, 0.0, -1)
        row = find_position(positions, slots, count, o.account, o.instrument, False)
        out.position = row
        # the last row is of no position: asking opens none
        _controls(acc, i, positions[row if row >= 0 else positions.shape[0] - 1], nodes, rates, o, out, cfg[0])


@hot_kernel
def _say_effect(i: Any, out: Any, gross: float, net: float, signed: float, more: float) -> None:
    """Note what an order adds; of VaR at most: as if all of it came on top. What it takes off VaR is not known."""
    out.effect[1], out.effect[2] = gross, net
    out.effect[3], out.effect[4] = signed * i.unit_delta, signed * i.unit_vega
    out.effect[5] = more * i.unit_var if more > 0.0 else 0.0 if more == 0.0 else np.nan


@inline_kernel
def _drift(i: Any, out: Any, ref: float, limit: float, low: float, high: float, soft: bool) -> None:
    """Hold how far the reference itself has moved within a window against a limit on it."""
    if high == high and limit > 0.0:
        moved = max(abs(ref - low), abs(high - ref)) / max(abs(ref), 1e-300) * 1e4
        if moved > limit * (1.0 + ROUNDED):
            fail(out, DRIFT, soft, moved, limit, i.node)


@hot_kernel
def _prices(i: Any, o: Any, out: Any, ref: float, held_to: float, through: float) -> None:
    """Check the age of an instrument's price, the collars, and how far the reference has moved.

    ``held_to``: the price that the order's is held against; ``through``: how far it lies beyond that, on the aggressive
    side
    """
    if i.stale != 0 or o.ts_ns - i.price_ns > i.age_max_ns:
        fail(out, STALE_PRICE, False, (o.ts_ns - i.price_ns) * 1e-6, i.age_max_ns * 1e-6, i.node)
    rest = ROUNDED * abs(held_to)
    band = max(i.collar_ticks * i.tick, abs(held_to) * i.collar_bps * 1e-4)
    if through > band + rest:
        fail(out, COLLAR, False, through, band, i.node)
    if i.soft_bps == i.soft_bps or i.soft_ticks == i.soft_ticks:
        bps = i.soft_bps if i.soft_bps == i.soft_bps else 0.0
        ticks = i.soft_ticks if i.soft_ticks == i.soft_ticks else 0.0
        band = max(ticks * i.tick, abs(held_to) * bps * 1e-4)
        if through > band + rest:
            fail(out, COLLAR, True, through, band, i.node)
    _drift(i, out, ref, i.drift_bps, i.drift_low, i.drift_high, False)
    _drift(i, out, ref, i.soft_drift, i.soft_low, i.soft_high, True)


@hot_kernel
def _doubles(p: Any, o: Any, out: Any, cfg: Any, price: float, waits: bool) -> None:
    """Check whether one like the order was let through moments ago, and whether it would trade against an own order."""
    if o.action == 0 and abs(o.ts_ns - o.same_ns) <= cfg.duplicate_ns:
        fail(out, DUPLICATE, False, abs(o.ts_ns - o.same_ns) * 1e-6, cfg.duplicate_ns * 1e-6, -1)
    # a market order takes whatever there is, behind the touch too; a stop that waits, what lies beyond its stop price
    own = np.inf if waits else (p.best_sell if o.side > 0.0 else -p.best_buy)
    if o.opposite == o.opposite:
        own = min(own, o.side * o.opposite)
    if own < np.inf and (o.market != 0 or o.side * price >= own):
        fail(out, SELF_MATCH, False, price, o.side * own, -1)


@hot_kernel
def _position_sides(p: Any, i: Any, o: Any, out: Any, long_after: float, short_after: float, rest: float) -> None:
    """Hold the side that an order adds to against its limits: one that closes one and opens the other as well."""
    if o.side > 0.0:
        if long_after > p.long_limit + rest:
            fail(out, POSITION_LONG, False, long_after, p.long_limit, i.node)
        if long_after > p.soft_long + rest:
            fail(out, POSITION_LONG, True, long_after, p.soft_long, i.node)
    else:
        if short_after > p.short_limit + rest:
            fail(out, POSITION_SHORT, False, short_after, p.short_limit, i.node)
        if short_after > p.soft_short + rest:
            fail(out, POSITION_SHORT, True, short_after, p.soft_short, i.node)


@hot_kernel
def _short_sale(q: float, i: Any, o: Any, out: Any, sells: float, price: float, rest: float) -> None:
    """Check a sale of more than is held: whether it may be at all, a locate, the price test."""
    if i.equity != 0 and o.side < 0.0 and sells > max(q, 0.0) + rest:
        if i.shortable == 0:
            fail(out, SHORT_BAN, False, sells - max(q, 0.0), 0.0, i.node)
        if o.locate == 0:
            fail(out, LOCATE, False, sells - max(q, 0.0), 0.0, i.node)
        if i.price_test != 0 and o.exempt == 0 and not price > i.bid:
            fail(out, UPTICK, False, price, i.bid, i.node)


@hot_kernel
def _controls(acc: Any, i: Any, p: Any, nodes: Any, rates: Any, o: Any,
              out: Any, cfg: Any) -> None:
    # what is limited for one order is the whole of it; what it may still do to a position is what is not executed
    q, side, size = p.quantity, o.side, max(o.quantity - o.executed, 0.0)
    if o.ts_ns - cfg.positions_ns > cfg.position_age_ns:
        age_ms = (o.ts_ns - cfg.positions_ns) * 1e-6 if cfg.positions_ns > 0 else np.inf  # nobody has said anything
        fail(out, STALE_POSITION, False, age_ms, cfg.position_age_ns * 1e-6, -1)
    # ---- reference price, collar
    ref = reference_of(i)
    worth = price_of_unit(i, ref)
    touch = i.ask if side > 0.0 else i.bid
    touch = touch if touch == touch else ref
    price = o.price if o.market == 0 else touch
    # a stop that is reached is the order that it waits to be
    waits = o.stop != 0 and not (o.stop_price - touch) * side <= 0.0
    if waits and o.market != 0:
        price = o.stop_price
    if worth != worth:
        fail(out, NO_REFERENCE, False, ref, i.unit, i.node)
    elif waits:
        _prices(i, o, out, ref, o.stop_price, (price - o.stop_price) * side)
        worth = price_of_unit(i, price)
    else:
        _prices(i, o, out, ref, ref, (price - ref) * side)
    paid = i.unit / max(price, 1.0 / _FIGURE_MAX) if i.inverse != 0 else i.unit * abs(price)
    value = o.quantity * paid
    out.effect[0] = value
    # ---- states and lists
    strictest, at = max(acc.state, i.state, cfg.state, o.state), acc.state_node
    if i.state >= strictest and i.state > acc.state:
        at = i.node
    for named in (o.trader, i.issuer, i.sector, o.counterparty, o.venue, i.asset_class, i.currency, i.pair):
        if named >= 0 and nodes[named].state > strictest:
            strictest, at = nodes[named].state, named
    if strictest >= 2:
        fail(out, HALTED, False, strictest, 1.0, at)
    if strictest == 1 or o.reduce_only != 0:
        # reducing: against the position, and no more than what is left of it after what already works
        left = abs(q) - (p.working_sell if q > 0.0 else p.working_buy)
        if size > 0.0 and (q == 0.0 or side * q > 0.0 or size > left + ROUNDED * abs(q)):
            fail(out, REDUCING_ONLY, False, size, max(left, 0.0) if side * q < 0.0 else 0.0,
                 at if strictest == 1 else -1)
    if o.permitted == 0:
        fail(out, NOT_PERMITTED, False, 0.0, 0.0, o.trader)
    if i.restricted != 0:
        fail(out, RESTRICTED, False, 1.0, 0.0, i.node)
    # ---- projected position: the worse side, working orders included
    buys = p.working_buy + (size if side > 0.0 else 0.0)
    sells = p.working_sell + (size if side < 0.0 else 0.0)
    long_after, short_after = q + buys, sells - q
    worst_before = max(q + p.working_buy, p.working_sell - q, 0.0)
    worst_after = max(long_after, short_after, 0.0)
    raises = worst_after > worst_before
    # what its side comes to when all of it is executed: who is nearer to flat then opens nothing
    reach, further = (long_after, q + p.working_buy) if side > 0.0 else (short_after, p.working_sell - q)
    level = max(reach, 0.0)
    opens = size > 0.0 and level > 0.0 and (raises or abs(reach) >= abs(further) * (1.0 - ROUNDED))
    # in the place of a larger one it lowers whatever that came to
    smaller = o.quantity < o.replaced
    rest = ROUNDED * max(abs(q), buys, sells)
    if size > 0.0 and not smaller:
        _position_sides(p, i, o, out, long_after, short_after, rest)
    _short_sale(q, i, o, out, sells, price, rest)
    _doubles(p, o, out, cfg, price, waits)
    # ---- limits of every node the order lies under
    per = abs(worth)
    # of an order that opens the other side of a larger one: that side takes the place of the larger one
    more = (level if opens else worst_after) - worst_before
    gross = more * per
    net = side * size * worth
    longer = (max(long_after, 0.0) - max(q + p.working_buy, 0.0)) * per
    shorter = (max(short_after, 0.0) - max(p.working_sell - q, 0.0)) * per
    if worth < 0.0:  # who buys at a price below 0 is paid: the position is worth less than nothing
        longer, shorter = shorter, longer
    margin = margin_of(i, level * per) - margin_of(i, worst_before * per) if opens else 0.0
    var = more * i.unit_var if opens else 0.0
    levered = levered_of(i, more) if opens else 0.0
    _say_effect(i, out, (worst_after - worst_before) * per, net, side * size, worst_after - worst_before)
    was = i.unit / max(o.was_price, 1.0 / _FIGURE_MAX) if i.inverse != 0 else i.unit * abs(o.was_price)
    check_nodes(acc, i, nodes, rates, o, out, cfg, gross, net, longer, shorter, value, opens, raises, smaller,
                o.was_price == o.was_price and value <= o.replaced * was, size, margin, var, levered)
    if opens and not smaller:
        check_shares(nodes, o, out, cfg, gross)


@hot_kernel
def _columns(table: int) -> Any:
    """Return the state's columns from the table of their addresses."""
    t = carray(_pointer(table), (17,), np.int64)
    a = carray(_pointer(t[0]), (t[10],), _ACCOUNT)
    ins = carray(_pointer(t[1]), (t[11],), _INSTRUMENT)
    positions = carray(_pointer(t[2]), (t[12],), _POSITION)
    slots = carray(_pointer(t[3]), (t[13],), np.int32)
    nodes = carray(_pointer(t[4]), (t[14],), _NODE)
    rates = carray(_pointer(t[5]), (t[15],), _RATE)
    orders = carray(_pointer(t[6]), (t[16],), _ORDER)
    results = carray(_pointer(t[7]), (t[16],), _RESULT)
    cfg = carray(_pointer(t[8]), (1,), _SETTINGS)
    count = carray(_pointer(t[9]), (1,), np.int64)
    return a, ins, positions, slots, nodes, rates, orders, results, cfg, count


@allocating_kernel
def check_order(table: int, index: int) -> int:
    """Check the order at a place of the ring; return its hard reasons (0: accepted).

    Parameters
    ----------
    table : address of `GateState.table`
    """
    a, ins, positions, slots, nodes, rates, orders, results, cfg, count = _columns(table)
    _check(a, ins, positions, slots, count, nodes, rates, orders[index], results[index], cfg, a.shape[0], ins.shape[0])
    return results[index].hard


@hot_kernel
def _copy(address: int, size: int, target: np.ndarray, at: int) -> int:
    source = carray(_pointer(address), (size,), np.uint8)
    for k in range(size):
        target[at + k] = source[k]
    return at + size


@allocating_kernel
def copy_inputs(table: int, index: int, rows: np.ndarray, found: np.ndarray) -> int:
    """Copy what `check_order` is about to read for the order at a place of the ring; return how many nodes.

    Parameters
    ----------
    rows : uint8[`READ_BYTES`], filled with the `READ_ROWS`, then node by node its row and those of its rate windows
    found : int64[nodes, 2], filled with the nodes that have a limit or a state, and how many rate windows they have
    """
    t = carray(_pointer(table), (17,), np.int64)
    a, ins, positions, slots, nodes, _, orders, _, _, count = _columns(table)
    o = orders[index]
    position = find_position(positions, slots, count, o.account, o.instrument, False)
    if position < 0:
        position = positions.shape[0] - 1
    at = _copy(t[6] + index * _ORDER_BYTES, _ORDER_BYTES, rows, 0)
    at = _copy(t[0] + o.account * _ACCOUNT_BYTES, _ACCOUNT_BYTES, rows, at)
    at = _copy(t[1] + o.instrument * _INSTRUMENT_BYTES, _INSTRUMENT_BYTES, rows, at)
    at = _copy(t[2] + position * _POSITION_BYTES, _POSITION_BYTES, rows, at)
    at = _copy(t[8], _SETTINGS_BYTES, rows, at)
    i = ins[o.instrument]
    n = 0
    for k in range(_NODES + _SHARES):
        node = node_at(k, a[o.account], i, o) if k < _NODES else o.shares[k - _NODES]
        if node < 0:
            continue
        # a node without a state, a window or a limit decides nothing
        decides = nodes[node].state != 0 or nodes[node].rates[0] >= 0 or nodes[node].softer != 0
        for m in range(_NM):
            decides = decides or np.isfinite(nodes[node].limit[m])
        if decides:
            found[n, 0], found[n, 1] = node, 0
            at = _copy(t[4] + node * _NODE_BYTES, _NODE_BYTES, rows, at)
            for w in range(_WINDOWS):
                if nodes[node].rates[w] < 0:
                    break
                at = _copy(t[5] + nodes[node].rates[w] * _RATE_BYTES, _RATE_BYTES, rows, at)
                found[n, 1] += 1
            n += 1
    return n


@allocating_kernel
def check_batch(table: int, first: int, n: int) -> int:
    """Check orders ``first .. first + n`` of the ring, one after the other; return how many were accepted."""
    a, ins, positions, slots, nodes, rates, orders, results, cfg, count = _columns(table)
    accepted = 0
    for k in range(first, first + n):
        _check(a, ins, positions, slots, count, nodes, rates, orders[k], results[k], cfg, a.shape[0], ins.shape[0])
        accepted += results[k].hard == 0
    return accepted

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
from models.jit import allocating_kernel, hot_kernel, inline_kernel
from schemas.controls import Check

(INVALID, UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT, HALTED, REDUCING_ONLY, NOT_PERMITTED, RESTRICTED, NO_REFERENCE,
 STALE_PRICE, STALE_EXPOSURE, NOT_SET, COLLAR, DRIFT, MAX_QUANTITY, MAX_VALUE, MESSAGE_RATE, VALUE_RATE, REPEATED,
 DUPLICATE, SELF_MATCH, SHORT_BAN, LOCATE, UPTICK, POSITION_LONG, POSITION_SHORT, GROSS, NET, LONG, SHORT,
 CONCENTRATION, MARGIN, CREDIT, LEVERAGE, DELTA, VEGA, VAR, RATING, DAILY_QUANTITY, DAILY_VALUE,
 UNKNOWN_ORDER, INTERNAL) = (
     int(c) for c in Check)
_M_GROSS, _M_NET, _M_DELTA, _M_VEGA, _M_VAR = gs.GROSS, gs.NET, gs.DELTA, gs.VEGA, gs.VAR_HIST
_M_LONG, _M_SHORT = gs.LONG, gs.SHORT
_M_LEVERAGE, _M_CONCENTRATION, _M_MARGIN, _M_CREDIT = gs.LEVERAGE, gs.CONCENTRATION, gs.MARGIN, gs.CREDIT
_M_QUANTITY, _M_VALUE, _M_COUNT, _M_FLOW = gs.ORDER_QUANTITY, gs.ORDER_VALUE, gs.MESSAGE_COUNT, gs.MESSAGE_VALUE
_M_DAY_QUANTITY, _M_DAY_VALUE, _M_REPEATED, _M_RATING = gs.DAILY_QUANTITY, gs.DAILY_VALUE, gs.REPEATED, gs.RATING
_ACCOUNT_NODES, _BUCKETS, _CHECKS = gs.ACCOUNT_NODES, gs.BUCKETS, gs.CHECKS
_ACCOUNT, _INSTRUMENT, _POSITION, _NODE = gs.ACCOUNT, gs.INSTRUMENT, gs.POSITION, gs.NODE
_RATE, _ORDER, _RESULT, _SETTINGS = gs.RATE, gs.ORDER, gs.RESULT, gs.SETTINGS
_ACCOUNT_BYTES, _INSTRUMENT_BYTES, _POSITION_BYTES, _NODE_BYTES, _RATE_BYTES, _ORDER_BYTES, _SETTINGS_BYTES = (
    row.itemsize for row in (gs.ACCOUNT, gs.INSTRUMENT, gs.POSITION, gs.NODE, gs.RATE, gs.ORDER, gs.SETTINGS))
_NM = gs.NM


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
    if not add or count[0] >= positions.shape[0]:
        return -1
    r = count[0]
    count[0] += 1
    positions[r].account, positions[r].instrument = account, instrument
    slots[h] = r
    return r


@hot_kernel
def _fail(out: Any, code: int, soft: bool, measured: float, limit: float, node: int) -> None:
    bit = np.uint64(1) << np.uint64(code)
    if soft:
        out.soft |= bit
    else:
        out.hard |= bit
    out.measured[code] = measured
    out.limit[code] = limit
    out.node[code] = node


@inline_kernel
def count_message(rate: Any, ts_ns: int, value: float) -> tuple[int, float]:
    """Count a message in its event-time window; return (messages, value) of the window that ends with it.

    A window is a ring of 32 buckets: what is older than the window by less than one bucket may still count.
    """
    width = rate.window_ns // _BUCKETS
    stamp = ts_ns // width
    slot = stamp % _BUCKETS
    if rate.stamp[slot] < stamp:
        rate.stamp[slot], rate.count[slot], rate.value[slot] = stamp, 0, 0.0
    if rate.stamp[slot] == stamp:  # a message older than its ring is not counted a second time
        rate.count[slot] += 1
        rate.value[slot] += value
    n, total = 0, 0.0
    for k in range(_BUCKETS):
        if stamp - _BUCKETS < rate.stamp[k] <= stamp:
            n += rate.count[k]
            total += rate.value[k]
    return n, total


@hot_kernel
def _check(a: Any, ins: Any, positions: Any, slots: Any, count: Any,
           nodes: Any, rates: Any, o: Any, out: Any, cfg: Any,
           account_capacity: int, instrument_capacity: int) -> None:
    """Evaluate one order; ``a`` and ``ins`` are whole columns, ``o`` and ``out`` single rows."""
    out.hard, out.soft = np.uint64(0), np.uint64(0)
    out.position, out.value = -1, np.nan
    bad = False
    if not (0.0 < o.quantity < np.inf) or not (o.side == 1.0 or o.side == -1.0):
        _fail(out, INVALID, False, o.quantity, 0.0, -1)
        bad = True
    if o.market == 0 and not (-np.inf < o.price < np.inf):
        _fail(out, INVALID, False, o.price, 0.0, -1)
        bad = True
    if o.account < 0 or o.account >= account_capacity or a[max(o.account, 0)].known == 0:
        _fail(out, UNKNOWN_ACCOUNT, False, 0.0, 0.0, -1)
        bad = True
    if o.instrument < 0 or o.instrument >= instrument_capacity or ins[max(o.instrument, 0)].known == 0:
        _fail(out, UNKNOWN_INSTRUMENT, False, 0.0, 0.0, -1)
        bad = True
    if not bad:
        acc, i = a[o.account], ins[o.instrument]
        row = find_position(positions, slots, count, o.account, o.instrument, True)
        if row < 0:
            _fail(out, INTERNAL, False, 0.0, 0.0, -1)
        else:
            out.position = row
            _controls(acc, i, positions[row], nodes, rates, o, out, cfg[0])


@hot_kernel
def _controls(acc: Any, i: Any, p: Any, nodes: Any, rates: Any, o: Any,
              out: Any, cfg: Any) -> None:
    q, side, size = p.quantity, o.side, o.quantity
    # ---- reference price, collar
    ref = i.mid
    if ref != ref:
        ref = i.last
    if ref != ref:
        ref = i.prior_close
    touch = i.ask if side > 0.0 else i.bid
    price = o.price if o.market == 0 else (touch if touch == touch else ref)
    if ref != ref or i.unit != i.unit:
        _fail(out, NO_REFERENCE, False, ref, i.unit, i.node)
    else:
        if i.stale != 0 or o.ts_ns - i.price_ns > i.age_max_ns:
            _fail(out, STALE_PRICE, False, (o.ts_ns - i.price_ns) * 1e-6, i.age_max_ns * 1e-6, i.node)
        band = max(i.collar_ticks * i.tick, abs(ref) * i.collar_bps * 1e-4)
        through = (price - ref) * side
        if through > band:
            _fail(out, COLLAR, False, through, band, i.node)
        if i.drift_high == i.drift_high and i.drift_bps > 0.0:
            moved = max(abs(ref - i.drift_low), abs(i.drift_high - ref)) / max(abs(ref), 1e-300) * 1e4
            if moved > i.drift_bps:
                _fail(out, DRIFT, False, moved, i.drift_bps, i.node)
    per = i.unit / ref if i.inverse != 0 else i.unit * abs(ref)
    paid = i.unit / max(price, 1e-300) if i.inverse != 0 else i.unit * abs(price)
    value = size * paid
    out.value = value
    # ---- states and lists
    strictest, at = max(acc.state, i.state, cfg.state), acc.state_node
    if i.state >= strictest and i.state > acc.state:
        at = i.node
    if o.trader >= 0:
        if nodes[o.trader].state > strictest:
            strictest, at = nodes[o.trader].state, o.trader
    if strictest >= 2:
        _fail(out, HALTED, False, strictest, 1.0, at)
    if strictest == 1:
        # reducing: against the position, and no more than what is left of it after what already works
        left = abs(q) - (p.working_sell if q > 0.0 else p.working_buy)
        if q == 0.0 or side * q > 0.0 or size > left:
            _fail(out, REDUCING_ONLY, False, size, max(left, 0.0) if side * q < 0.0 else 0.0, at)
    if o.permitted == 0:
        _fail(out, NOT_PERMITTED, False, 0.0, 0.0, o.trader)
    if i.restricted != 0:
        _fail(out, RESTRICTED, False, 1.0, 0.0, i.node)
    # ---- projected position: the worse side, working orders included
    buys = p.working_buy + (size if side > 0.0 else 0.0)
    sells = p.working_sell + (size if side < 0.0 else 0.0)
    long_after, short_after = q + buys, sells - q
    worst_before = max(q + p.working_buy, p.working_sell - q, 0.0)
    worst_after = max(long_after, short_after, 0.0)
    opens = worst_after > worst_before
    if opens:
        if side > 0.0 and long_after > p.long_limit:
            _fail(out, POSITION_LONG, False, long_after, p.long_limit, i.node)
        if side < 0.0 and short_after > p.short_limit:
            _fail(out, POSITION_SHORT, False, short_after, p.short_limit, i.node)
    # ---- short sale
    if i.equity != 0 and side < 0.0 and sells > max(q, 0.0):
        if i.shortable == 0:
            _fail(out, SHORT_BAN, False, sells - max(q, 0.0), 0.0, i.node)
        if o.locate == 0:
            _fail(out, LOCATE, False, sells - max(q, 0.0), 0.0, i.node)
        if i.price_test != 0 and o.exempt == 0 and not price > i.bid:
            _fail(out, UPTICK, False, price, i.bid, i.node)
    # ---- duplicates, self-match
    if (o.action == 0 and side == p.last_side and size == p.last_quantity and price == p.last_price
            and abs(o.ts_ns - p.last_ns) <= cfg.duplicate_ns):
        _fail(out, DUPLICATE, False, abs(o.ts_ns - p.last_ns) * 1e-6, cfg.duplicate_ns * 1e-6, -1)
    p.last_side, p.last_quantity, p.last_price, p.last_ns = side, size, price, o.ts_ns
    if side > 0.0 and price >= p.best_sell:
        _fail(out, SELF_MATCH, False, price, p.best_sell, -1)
    if side < 0.0 and price <= p.best_buy:
        _fail(out, SELF_MATCH, False, price, p.best_buy, -1)
    # ---- limits of every node the order lies under
    gross = (worst_after - worst_before) * per
    net = side * size * per
    longer = (max(long_after, 0.0) - max(q + p.working_buy, 0.0)) * per
    shorter = (max(short_after, 0.0) - max(p.working_sell - q, 0.0)) * per
    _nodes(acc, i, nodes, rates, o, out, cfg, gross, net, longer, shorter, value, opens, size)


@hot_kernel
def _over(measured: float, limit: float) -> bool:
    """Whether a limit is exceeded: what could not be measured is within no limit; without a limit nothing is."""
    return limit == limit and not measured <= limit


@hot_kernel
def _nodes(acc: Any, i: Any, nodes: Any, rates: Any, o: Any, out: Any, cfg: Any, gross: float, net: float,
           longer: float, shorter: float, value: float, opens: bool, size: float) -> None:
    has_quantity, has_value = False, False
    for k in range(12):
        n = -1
        if k < _ACCOUNT_NODES:
            n = acc.nodes[k]
        elif k == 6:
            n = o.trader
        elif k == 7:
            n = i.issuer
        elif k == 8:
            n = i.sector
        elif k == 9:
            n = o.counterparty
        elif k == 10:
            n = o.venue
        else:
            n = i.node
        if n < 0:
            continue
        d = nodes[n]
        has_quantity = has_quantity or d.limit[_M_QUANTITY] == d.limit[_M_QUANTITY]
        has_value = has_value or d.limit[_M_VALUE] == d.limit[_M_VALUE]
        if _over(size, d.limit[_M_QUANTITY]):
            _fail(out, MAX_QUANTITY, (d.soft >> _M_QUANTITY) & 1 != 0, size, d.limit[_M_QUANTITY], n)
        if _over(value, d.limit[_M_VALUE]):
            _fail(out, MAX_VALUE, (d.soft >> _M_VALUE) & 1 != 0, value, d.limit[_M_VALUE], n)
        if _over(d.value[_M_DAY_QUANTITY] + size, d.limit[_M_DAY_QUANTITY]):
            _fail(out, DAILY_QUANTITY, (d.soft >> _M_DAY_QUANTITY) & 1 != 0, d.value[_M_DAY_QUANTITY] + size,
                  d.limit[_M_DAY_QUANTITY], n)
        if _over(d.value[_M_DAY_VALUE] + value, d.limit[_M_DAY_VALUE]):
            _fail(out, DAILY_VALUE, (d.soft >> _M_DAY_VALUE) & 1 != 0, d.value[_M_DAY_VALUE] + value,
                  d.limit[_M_DAY_VALUE], n)
        if o.algo >= 0 and k == 6 and _over(d.value[_M_REPEATED] + 1.0, d.limit[_M_REPEATED]):
            _fail(out, REPEATED, (d.soft >> _M_REPEATED) & 1 != 0, d.value[_M_REPEATED] + 1.0, d.limit[_M_REPEATED], n)
        if k == 9 and _over(d.value[_M_RATING], d.limit[_M_RATING]):
            _fail(out, RATING, (d.soft >> _M_RATING) & 1 != 0, d.value[_M_RATING], d.limit[_M_RATING], n)
        if d.rate >= 0:
            messages, flow = count_message(rates[d.rate], o.ts_ns, value if value == value else 0.0)
            if _over(messages, d.limit[_M_COUNT]):
                _fail(out, MESSAGE_RATE, (d.soft >> _M_COUNT) & 1 != 0, messages, d.limit[_M_COUNT], n)
            if _over(flow, d.limit[_M_FLOW]):
                _fail(out, VALUE_RATE, (d.soft >> _M_FLOW) & 1 != 0, flow, d.limit[_M_FLOW], n)
        _exposures(d, n, k, i, o, out, cfg, gross, net, opens, size)
        _sides(d, n, o, out, cfg, longer, shorter)
    if cfg.limits_required != 0:
        if not has_quantity:
            _fail(out, NOT_SET, False, size, 0.0, i.node)
        if not has_value:
            _fail(out, NOT_SET, False, value, 0.0, i.node)


@hot_kernel
def _sides(d: Any, n: int, o: Any, out: Any, cfg: Any, longer: float, shorter: float) -> None:
    """Check what the order adds to the long, or to the short positions of a node; what closes adds to neither."""
    limited = False
    if longer > 0.0:
        limited = d.limit[_M_LONG] == d.limit[_M_LONG]
        if _over(d.value[_M_LONG] + longer, d.limit[_M_LONG]):
            _fail(out, LONG, (d.soft >> _M_LONG) & 1 != 0, d.value[_M_LONG] + longer, d.limit[_M_LONG], n)
    if shorter > 0.0:
        limited = limited or d.limit[_M_SHORT] == d.limit[_M_SHORT]
        if _over(d.value[_M_SHORT] + shorter, d.limit[_M_SHORT]):
            _fail(out, SHORT, (d.soft >> _M_SHORT) & 1 != 0, d.value[_M_SHORT] + shorter, d.limit[_M_SHORT], n)
    if limited and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        _fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)


@hot_kernel
def _exposures(d: Any, n: int, k: int, i: Any, o: Any, out: Any, cfg: Any,
               gross: float, net: float, opens: bool, size: float) -> None:
    """Check what the order does to a node; a limit the order improves never blocks it."""
    limited = False
    if opens:
        after = d.value[_M_GROSS] + gross
        limited = d.limit[_M_GROSS] == d.limit[_M_GROSS]
        if _over(after, d.limit[_M_GROSS]):
            _fail(out, GROSS, (d.soft >> _M_GROSS) & 1 != 0, after, d.limit[_M_GROSS], n)
        if (k == 9 or k == 10) and _over(d.value[_M_CREDIT] + gross, d.limit[_M_CREDIT]):
            _fail(out, CREDIT, (d.soft >> _M_CREDIT) & 1 != 0, d.value[_M_CREDIT] + gross, d.limit[_M_CREDIT], n)
        if _over(after / d.nav, d.limit[_M_LEVERAGE]):
            _fail(out, LEVERAGE, (d.soft >> _M_LEVERAGE) & 1 != 0, after / d.nav, d.limit[_M_LEVERAGE], n)
        if (k == 7 or k == 8) and _over(after / d.nav, d.limit[_M_CONCENTRATION]):
            _fail(out, CONCENTRATION, (d.soft >> _M_CONCENTRATION) & 1 != 0, after / d.nav,
                  d.limit[_M_CONCENTRATION], n)
        if k == 5:
            margin = d.value[_M_MARGIN] + gross * i.margin_rate
            if _over(margin, d.limit[_M_MARGIN]):
                _fail(out, MARGIN, (d.soft >> _M_MARGIN) & 1 != 0, margin, d.limit[_M_MARGIN], n)
    before, after = d.value[_M_NET], d.value[_M_NET] + net
    limited = limited or d.limit[_M_NET] == d.limit[_M_NET]
    if not abs(after) <= abs(before) and _over(abs(after), d.limit[_M_NET]):
        _fail(out, NET, (d.soft >> _M_NET) & 1 != 0, abs(after), d.limit[_M_NET], n)
    before, after = d.value[_M_DELTA], d.value[_M_DELTA] + o.side * size * i.unit_delta
    if not abs(after) <= abs(before) and _over(abs(after), d.limit[_M_DELTA]):
        _fail(out, DELTA, (d.soft >> _M_DELTA) & 1 != 0, abs(after), d.limit[_M_DELTA], n)
    before, after = d.value[_M_VEGA], d.value[_M_VEGA] + o.side * size * i.unit_vega
    if not abs(after) <= abs(before) and _over(abs(after), d.limit[_M_VEGA]):
        _fail(out, VEGA, (d.soft >> _M_VEGA) & 1 != 0, abs(after), d.limit[_M_VEGA], n)
    if opens and d.limit[_M_VAR] == d.limit[_M_VAR]:
        limited = True
        # an upper bound: the VaR of a sum is at most the sum where the order's own VaR is fully correlated
        var = d.value[_M_VAR] + gross * d.var_per_value
        if _over(var, d.limit[_M_VAR]):
            _fail(out, VAR, (d.soft >> _M_VAR) & 1 != 0, var, d.limit[_M_VAR], n)
    if limited and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        _fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)


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
    rows : uint8[`READ_BYTES`], filled with the `READ_ROWS`, then node by node its row and that of its rate window
    found : int64[nodes, 2], filled with the nodes that have a limit or a state, and their rate windows (-1: none)

    Returns
    -------
    int
        How many nodes; -1 where there is no room for one more position
    """
    t = carray(_pointer(table), (17,), np.int64)
    a, ins, positions, slots, nodes, _, orders, _, _, count = _columns(table)
    o = orders[index]
    position = find_position(positions, slots, count, o.account, o.instrument, True)
    if position < 0:
        return -1
    at = _copy(t[6] + index * _ORDER_BYTES, _ORDER_BYTES, rows, 0)
    at = _copy(t[0] + o.account * _ACCOUNT_BYTES, _ACCOUNT_BYTES, rows, at)
    at = _copy(t[1] + o.instrument * _INSTRUMENT_BYTES, _INSTRUMENT_BYTES, rows, at)
    at = _copy(t[2] + position * _POSITION_BYTES, _POSITION_BYTES, rows, at)
    at = _copy(t[8], _SETTINGS_BYTES, rows, at)
    i = ins[o.instrument]
    n = 0
    for k in range(_ACCOUNT_NODES + 6):
        if k < _ACCOUNT_NODES:
            node = a[o.account].nodes[k]
        else:
            node = (o.trader, i.issuer, i.sector, o.counterparty, o.venue, i.node)[k - _ACCOUNT_NODES]
        if node < 0:
            continue
        decides = nodes[node].state != 0  # a node without a limit or a state decides nothing
        for m in range(_NM):
            decides = decides or np.isfinite(nodes[node].limit[m])
        if decides:
            rate = nodes[node].rate
            found[n, 0], found[n, 1] = node, rate
            n += 1
            at = _copy(t[4] + node * _NODE_BYTES, _NODE_BYTES, rows, at)
            if rate >= 0:
                at = _copy(t[5] + rate * _RATE_BYTES, _RATE_BYTES, rows, at)
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

"""The part of the gate's kernel that holds an order against the limits of every node it lies under."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.figures import is_figure
from models.gate import state as gs
from models.jit import hot_kernel, inline_kernel
from schemas.controls import Check

(STALE_EXPOSURE, NOT_SET, MAX_QUANTITY, MAX_VALUE, MESSAGE_RATE, VALUE_RATE, REPEATED, GROSS, NET, LONG, SHORT,
 CONCENTRATION, MARGIN, CREDIT, LEVERAGE, DELTA, VEGA, VAR, RATING, DAILY_QUANTITY, DAILY_VALUE) = (int(c) for c in (
     Check.STALE_EXPOSURE, Check.LIMIT_NOT_SET, Check.MAX_QUANTITY, Check.MAX_VALUE, Check.MESSAGE_RATE,
     Check.VALUE_RATE, Check.REPEATED_EXECUTION, Check.GROSS_EXPOSURE, Check.NET_EXPOSURE, Check.LONG_EXPOSURE,
     Check.SHORT_EXPOSURE, Check.CONCENTRATION, Check.MARGIN, Check.CREDIT, Check.LEVERAGE, Check.DELTA, Check.VEGA,
     Check.VAR, Check.COUNTERPARTY_RATING, Check.DAILY_QUANTITY, Check.DAILY_VALUE))
_M_GROSS, _M_NET, _M_DELTA, _M_VEGA, _M_VAR = gs.GROSS, gs.NET, gs.DELTA, gs.VEGA, gs.VAR_HIST
_M_LONG, _M_SHORT = gs.LONG, gs.SHORT
_M_NET_UP, _M_DELTA_UP, _M_VEGA_UP = gs.NET_UP, gs.DELTA_UP, gs.VEGA_UP
_M_LEVERAGE, _M_CONCENTRATION, _M_MARGIN, _M_CREDIT = gs.LEVERAGE, gs.CONCENTRATION, gs.MARGIN, gs.CREDIT
_M_QUANTITY, _M_VALUE = gs.ORDER_QUANTITY, gs.ORDER_VALUE
_M_DAY_QUANTITY, _M_DAY_VALUE, _M_REPEATED, _M_RATING = gs.DAILY_QUANTITY, gs.DAILY_VALUE, gs.REPEATED, gs.RATING
_ACCOUNT_NODES, _NODES, _SHARES, _WINDOWS, _TIERS, _BUCKETS = (
    gs.ACCOUNT_NODES, gs.ACCOUNT_NODES + gs.ORDER_NODES, gs.SHARES, gs.WINDOWS, gs.MARGIN_TIERS, gs.BUCKETS)
#: places of nodes, after those of the account
(_TRADER, _ISSUER, _SECTOR, _COUNTERPARTY, _VENUE, _INSTRUMENT, _CLASS, _CURRENCY) = range(
    _ACCOUNT_NODES, _ACCOUNT_NODES + 8)


#: of a limit, or of what is compared: what lies within it is the rest of sums and products of decimals
ROUNDED = 1e-12


@hot_kernel
def fail(out: Any, code: int, soft: bool, measured: float, limit: float, node: int) -> None:
    bit = np.uint64(1) << np.uint64(code)
    if soft:
        out.soft |= bit
        if out.hard & bit != 0:
            return  # what refuses is told, not what warns beside it
    else:
        out.hard |= bit
    out.measured[code] = measured
    out.limit[code] = limit
    out.node[code] = node


@inline_kernel
def reference_of(i: Any) -> float:
    """Return the price that an instrument is valued at: its mid, else its last, else its prior close; NaN: none."""
    return i.mid if i.mid == i.mid else i.last if i.last == i.last else i.prior_close


@inline_kernel
def price_of_unit(i: Any, ref: float) -> float:
    """Return what one unit held is worth, in the firm's base currency: below 0 at a price below 0; NaN: not known."""
    worth = i.unit / ref if i.inverse != 0 else i.unit * (ref + i.accrued) * i.discount
    return worth if is_figure(worth) else np.nan


@inline_kernel
def margin_of(i: Any, notional: float) -> float:
    """Return the initial margin on a notional in base currency, each rate on its slice.

    NaN beyond the last tier, without a rate, and of a notional that is not known.
    """
    low, margin = 0.0, 0.0
    for t in range(_TIERS):
        part = notional - low
        if not part > 0.0:
            break
        if i.margin_up_to[t] == i.margin_up_to[t]:
            part = min(part, i.margin_up_to[t] - low)
        margin += part * i.margin_rate[t]
        low += part
        if margin != margin:
            break
    return margin if notional <= low * (1.0 + 1e-12) else np.nan


@inline_kernel
def count_message(rate: Any, ts_ns: int, value: float, dry: bool = False) -> tuple[int, float]:
    """Count a message in its event-time window; return (messages, value) of the window that ends with it.

    ``dry``: nothing is written.

    A window is a ring of 32 buckets, each a 31st of it: all that lies within the window counts, and what is older by
    less than one bucket may.
    """
    stamp = ts_ns // rate.bucket_ns
    slot = stamp % _BUCKETS
    n, total = 0, 0.0
    if dry:
        n, total = (1, value) if rate.stamp[slot] <= stamp else (0, 0.0)
    elif rate.stamp[slot] <= stamp:  # a message older than its ring is not counted a second time
        if rate.stamp[slot] < stamp:
            rate.stamp[slot], rate.count[slot], rate.value[slot] = stamp, 0, 0.0
        rate.count[slot] += 1
        rate.value[slot] += value
    for k in range(_BUCKETS):
        if stamp - _BUCKETS < rate.stamp[k] <= stamp:
            n += rate.count[k]
            total += rate.value[k]
    return n, total


@hot_kernel
def _over(measured: float, limit: float) -> bool:
    """Whether a limit is exceeded: what could not be measured is within no limit; without a limit nothing is."""
    return limit == limit and not measured <= limit + ROUNDED * abs(limit)


@inline_kernel
def _hold(d: Any, n: int, out: Any, code: int, metric: int, measured: float) -> None:
    """Hold a figure against the hard limit of a node, and against the soft one."""
    if _over(measured, d.limit[metric]):
        fail(out, code, False, measured, d.limit[metric], n)
    if d.softer != 0 and _over(measured, d.soft[metric]):
        fail(out, code, True, measured, d.soft[metric], n)


@inline_kernel
def _limited(d: Any, metric: int) -> bool:
    return d.limit[metric] == d.limit[metric] or d.soft[metric] == d.soft[metric]


@inline_kernel
def _ratio(part: float, nav: float) -> float:
    """Return a part of a NAV; of one that is not above 0 nothing is a known part."""
    return part / nav if nav > 0.0 else np.nan


@inline_kernel
def node_at(k: int, acc: Any, i: Any, o: Any) -> int:
    """Return the node at a place among those that an order lies under; -1: none."""
    if k < _ACCOUNT_NODES:
        return acc.nodes[k]
    if k == _TRADER:
        return o.trader
    if k == _ISSUER:
        return i.issuer
    if k == _SECTOR:
        return i.sector
    if k == _COUNTERPARTY:
        return o.counterparty
    if k == _VENUE:
        return o.venue
    if k == _INSTRUMENT:
        return i.node
    if k == _CLASS:
        return i.asset_class
    return i.currency if k == _CURRENCY else i.pair


@inline_kernel
def levered_of(i: Any, size: float) -> float:
    """Return the delta equivalent of so many units, without a sign; of cash in the firm's base currency there is none.

    NaN: it is not known.
    """
    return 0.0 if i.base_cash != 0 else size * abs(i.unit_delta)


@hot_kernel
def check_nodes(acc: Any, i: Any, nodes: Any, rates: Any, o: Any, out: Any, cfg: Any, gross: float, net: float,
                longer: float, shorter: float, value: float, opens: bool, raises: bool, smaller: bool, cheaper: bool,
                size: float, margin: float, var: float, levered: float) -> None:
    """Hold an order against the limits of the nodes it lies under.

    Parameters
    ----------
    opens : whether it opens anything beside what works already; ``raises``: the worse side of its position as well
    smaller : whether it takes the place of a larger one: what it lowers it passes; ``cheaper``: of a dearer one, too
    """
    has_quantity, has_value = False, False
    # the day counts what an order raises the one that it replaces by
    more = max(o.quantity - o.replaced, 0.0)
    more_value = value * (more / o.quantity)
    for k in range(_NODES):
        n = node_at(k, acc, i, o)
        if n < 0:
            continue
        d = nodes[n]
        # a soft limit is no maximum
        has_quantity = has_quantity or d.limit[_M_QUANTITY] == d.limit[_M_QUANTITY]
        has_value = has_value or d.limit[_M_VALUE] == d.limit[_M_VALUE]
        # a trader, a counterparty and a venue have the orders that name them; all others what their positions come to
        named = k == _TRADER or k == _COUNTERPARTY or k == _VENUE
        lowers = smaller and (not named or o.same_names != 0)
        if not lowers:
            _hold(d, n, out, MAX_QUANTITY, _M_QUANTITY, o.quantity)
        if not lowers or not cheaper:
            _hold(d, n, out, MAX_VALUE, _M_VALUE, value)
        if more > 0.0:
            _hold(d, n, out, DAILY_QUANTITY, _M_DAY_QUANTITY, d.value[_M_DAY_QUANTITY] + more)
            _hold(d, n, out, DAILY_VALUE, _M_DAY_VALUE, d.value[_M_DAY_VALUE] + more_value)
        if o.algo >= 0 and k == _TRADER:
            _hold(d, n, out, REPEATED, _M_REPEATED, d.value[_M_REPEATED] + 1.0)
        if k == _COUNTERPARTY:
            _hold(d, n, out, RATING, _M_RATING, d.value[_M_RATING])
        _messages(d, n, rates, o, out, value)
        if not lowers:
            _exposures(d, n, k, i, o, out, cfg, gross, net, raises if named else opens, size, margin, var, levered)
            _sides(d, n, o, out, cfg, longer, shorter)
    if cfg.limits_required != 0:
        if not has_quantity:
            fail(out, NOT_SET, False, o.quantity, 0.0, i.node)
        if not has_value:
            fail(out, NOT_SET, False, value, 0.0, i.node)


@hot_kernel
def _messages(d: Any, n: int, rates: Any, o: Any, out: Any, value: float) -> None:
    """Count the message in every window of a node, and check each window's limits."""
    for w in range(_WINDOWS):
        if d.rates[w] < 0:
            break
        rate = rates[d.rates[w]]
        own, own_value = count_message(rate, o.ts_ns, value if value == value else 0.0, o.dry != 0)
        messages, flow = own + rate.others[0], own_value + rate.others[1]
        if _over(messages, rate.limit[0]):
            fail(out, MESSAGE_RATE, False, messages, rate.limit[0], n)
        if _over(messages, rate.soft[0]):
            fail(out, MESSAGE_RATE, True, messages, rate.soft[0], n)
        if _over(flow, rate.limit[1]):
            fail(out, VALUE_RATE, False, flow, rate.limit[1], n)
        if _over(flow, rate.soft[1]):
            fail(out, VALUE_RATE, True, flow, rate.soft[1], n)


@hot_kernel
def check_shares(nodes: Any, o: Any, out: Any, cfg: Any, gross: float) -> None:
    """Check what a node of the account would have in the instrument's issuer, or sector, as a share of its NAV."""
    for k in range(_SHARES):
        n = o.shares[k]
        if n < 0:
            break
        _share(nodes[n], n, o, out, cfg, gross)


@hot_kernel
def _share(d: Any, n: int, o: Any, out: Any, cfg: Any, gross: float) -> None:
    _hold(d, n, out, CONCENTRATION, _M_CONCENTRATION, _ratio(d.value[_M_GROSS] + gross, d.nav))
    if _limited(d, _M_CONCENTRATION) and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)


@hot_kernel
def _sides(d: Any, n: int, o: Any, out: Any, cfg: Any, longer: float, shorter: float) -> None:
    """Check what the order adds to the long, or to the short positions of a node; what closes adds to neither."""
    limited = False
    if longer > 0.0:
        limited = _limited(d, _M_LONG)
        _hold(d, n, out, LONG, _M_LONG, d.value[_M_LONG] + longer)
    if shorter > 0.0:
        limited = limited or _limited(d, _M_SHORT)
        _hold(d, n, out, SHORT, _M_SHORT, d.value[_M_SHORT] + shorter)
    if limited and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)


@hot_kernel
def _both_ways(d: Any, n: int, out: Any, code: int, metric: int, up: int, change: float) -> None:
    """Check a figure with a sign where one side of what works is executed and the other one is not, whichever is worse.

    ``up``: where what works above 0 is; what works below 0 is behind it.
    """
    highest, lowest = d.value[metric] + d.value[up + 1], d.value[metric] - d.value[up]
    before = max(abs(highest), abs(lowest))
    if change > 0.0:
        highest += change
    else:  # as well where it is not known
        lowest += change
    after = max(abs(highest), abs(lowest)) if lowest == lowest else np.nan
    if not after <= before:
        _hold(d, n, out, code, metric, after)


@hot_kernel
def _exposures(d: Any, n: int, k: int, i: Any, o: Any, out: Any, cfg: Any,
               gross: float, net: float, opens: bool, size: float, margin: float, var: float, levered: float,
               ) -> None:
    """Check what the order does to a node; a limit the order improves never blocks it."""
    limited = False
    if opens:
        after = d.value[_M_GROSS] + gross
        limited = _limited(d, _M_GROSS) or _limited(d, _M_CREDIT) or _limited(d, _M_LEVERAGE)
        _hold(d, n, out, GROSS, _M_GROSS, after)
        credit = d.value[_M_CREDIT] if k == _COUNTERPARTY or k == _VENUE else d.value[_M_GROSS]
        # of a customer, a desk or the firm its credit in use is its gross; at a counterparty or a venue what is there
        _hold(d, n, out, CREDIT, _M_CREDIT, credit + gross)
        _hold(d, n, out, LEVERAGE, _M_LEVERAGE, _ratio(d.value[_M_LEVERAGE] + levered, d.nav))
        if k == _ISSUER or k == _SECTOR:
            _share(d, n, o, out, cfg, gross)
        if k < _ACCOUNT_NODES or k == _ISSUER or k == _SECTOR or k >= _CLASS:
            limited = limited or _limited(d, _M_MARGIN)
            _hold(d, n, out, MARGIN, _M_MARGIN, d.value[_M_MARGIN] + margin)
    for metric in (_M_NET, _M_DELTA, _M_VEGA):
        limited = limited or _limited(d, metric)
    _both_ways(d, n, out, NET, _M_NET, _M_NET_UP, net)
    _both_ways(d, n, out, DELTA, _M_DELTA, _M_DELTA_UP, o.side * size * i.unit_delta)
    _both_ways(d, n, out, VEGA, _M_VEGA, _M_VEGA_UP, o.side * size * i.unit_vega)
    if opens and _limited(d, _M_VAR):
        limited = True
        # as if the worst days of what is held and of what is added were the same ones: nothing is taken for a hedge
        _hold(d, n, out, VAR, _M_VAR, d.value[_M_VAR] + var)
    if limited and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)

"""The part of the gate's kernel that holds an order against the limits of every node it lies under."""

from __future__ import annotations

from typing import Any

import numpy as np

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
_ACCOUNT_NODES, _SHARES, _WINDOWS, _TIERS, _BUCKETS = (
    gs.ACCOUNT_NODES, gs.SHARES, gs.WINDOWS, gs.MARGIN_TIERS, gs.BUCKETS)


@hot_kernel
def fail(out: Any, code: int, soft: bool, measured: float, limit: float, node: int) -> None:
    bit = np.uint64(1) << np.uint64(code)
    if soft:
        out.soft |= bit
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
    return i.unit / ref if i.inverse != 0 else i.unit * (ref + i.accrued) * i.discount


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
def count_message(rate: Any, ts_ns: int, value: float) -> tuple[int, float]:
    """Count a message in its event-time window; return (messages, value) of the window that ends with it.

    A window is a ring of 32 buckets, each a 31st of it: all that lies within the window counts, and what is older by
    less than one bucket may.
    """
    stamp = ts_ns // rate.bucket_ns
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
def _over(measured: float, limit: float) -> bool:
    """Whether a limit is exceeded: what could not be measured is within no limit; without a limit nothing is."""
    return limit == limit and not measured <= limit


@hot_kernel
def check_nodes(acc: Any, i: Any, nodes: Any, rates: Any, o: Any, out: Any, cfg: Any, gross: float, net: float,
                longer: float, shorter: float, value: float, opens: bool, size: float, margin: float, var: float,
                ) -> None:
    has_quantity, has_value = False, False
    # the day counts what an order raises the one that it replaces by
    more = max(o.quantity - o.replaced, 0.0)
    more_value = value * (more / o.quantity)
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
        if _over(o.quantity, d.limit[_M_QUANTITY]):
            fail(out, MAX_QUANTITY, (d.soft >> _M_QUANTITY) & 1 != 0, o.quantity, d.limit[_M_QUANTITY], n)
        if _over(value, d.limit[_M_VALUE]):
            fail(out, MAX_VALUE, (d.soft >> _M_VALUE) & 1 != 0, value, d.limit[_M_VALUE], n)
        if _over(d.value[_M_DAY_QUANTITY] + more, d.limit[_M_DAY_QUANTITY]):
            fail(out, DAILY_QUANTITY, (d.soft >> _M_DAY_QUANTITY) & 1 != 0, d.value[_M_DAY_QUANTITY] + more,
                  d.limit[_M_DAY_QUANTITY], n)
        if _over(d.value[_M_DAY_VALUE] + more_value, d.limit[_M_DAY_VALUE]):
            fail(out, DAILY_VALUE, (d.soft >> _M_DAY_VALUE) & 1 != 0, d.value[_M_DAY_VALUE] + more_value,
                  d.limit[_M_DAY_VALUE], n)
        if o.algo >= 0 and k == 6 and _over(d.value[_M_REPEATED] + 1.0, d.limit[_M_REPEATED]):
            fail(out, REPEATED, (d.soft >> _M_REPEATED) & 1 != 0, d.value[_M_REPEATED] + 1.0, d.limit[_M_REPEATED], n)
        if k == 9 and _over(d.value[_M_RATING], d.limit[_M_RATING]):
            fail(out, RATING, (d.soft >> _M_RATING) & 1 != 0, d.value[_M_RATING], d.limit[_M_RATING], n)
        _messages(d, n, rates, o, out, value)
        _exposures(d, n, k, i, o, out, cfg, gross, net, opens, size, margin, var)
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
        own, own_value = count_message(rate, o.ts_ns, value if value == value else 0.0)
        messages, flow = own + rate.others[0], own_value + rate.others[1]
        if _over(messages, rate.limit[0]):
            fail(out, MESSAGE_RATE, rate.soft & 1 != 0, messages, rate.limit[0], n)
        if _over(flow, rate.limit[1]):
            fail(out, VALUE_RATE, rate.soft & 2 != 0, flow, rate.limit[1], n)


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
    share, limit = (d.value[_M_GROSS] + gross) / d.nav, d.limit[_M_CONCENTRATION]
    if _over(share, limit):
        fail(out, CONCENTRATION, (d.soft >> _M_CONCENTRATION) & 1 != 0, share, limit, n)
    if limit == limit and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)


@hot_kernel
def _sides(d: Any, n: int, o: Any, out: Any, cfg: Any, longer: float, shorter: float) -> None:
    """Check what the order adds to the long, or to the short positions of a node; what closes adds to neither."""
    limited = False
    if longer > 0.0:
        limited = d.limit[_M_LONG] == d.limit[_M_LONG]
        if _over(d.value[_M_LONG] + longer, d.limit[_M_LONG]):
            fail(out, LONG, (d.soft >> _M_LONG) & 1 != 0, d.value[_M_LONG] + longer, d.limit[_M_LONG], n)
    if shorter > 0.0:
        limited = limited or d.limit[_M_SHORT] == d.limit[_M_SHORT]
        if _over(d.value[_M_SHORT] + shorter, d.limit[_M_SHORT]):
            fail(out, SHORT, (d.soft >> _M_SHORT) & 1 != 0, d.value[_M_SHORT] + shorter, d.limit[_M_SHORT], n)
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
    if not after <= before and _over(after, d.limit[metric]):
        fail(out, code, (d.soft >> metric) & 1 != 0, after, d.limit[metric], n)


@hot_kernel
def _exposures(d: Any, n: int, k: int, i: Any, o: Any, out: Any, cfg: Any,
               gross: float, net: float, opens: bool, size: float, margin: float, var: float) -> None:
    """Check what the order does to a node; a limit the order improves never blocks it."""
    limited = False
    if opens:
        after = d.value[_M_GROSS] + gross
        limited = d.limit[_M_GROSS] == d.limit[_M_GROSS]
        if _over(after, d.limit[_M_GROSS]):
            fail(out, GROSS, (d.soft >> _M_GROSS) & 1 != 0, after, d.limit[_M_GROSS], n)
        # of a customer, a desk or the firm its credit in use is its gross; at a counterparty or a venue what is there
        credit = (d.value[_M_CREDIT] if k == 9 or k == 10 else d.value[_M_GROSS]) + gross
        limited = limited or d.limit[_M_CREDIT] == d.limit[_M_CREDIT]
        if _over(credit, d.limit[_M_CREDIT]):
            fail(out, CREDIT, (d.soft >> _M_CREDIT) & 1 != 0, credit, d.limit[_M_CREDIT], n)
        limited = limited or d.limit[_M_LEVERAGE] == d.limit[_M_LEVERAGE]
        if _over(after / d.nav, d.limit[_M_LEVERAGE]):
            fail(out, LEVERAGE, (d.soft >> _M_LEVERAGE) & 1 != 0, after / d.nav, d.limit[_M_LEVERAGE], n)
        if k == 7 or k == 8:
            _share(d, n, o, out, cfg, gross)
        if k < _ACCOUNT_NODES:
            limited = limited or d.limit[_M_MARGIN] == d.limit[_M_MARGIN]
            if _over(d.value[_M_MARGIN] + margin, d.limit[_M_MARGIN]):
                fail(out, MARGIN, (d.soft >> _M_MARGIN) & 1 != 0, d.value[_M_MARGIN] + margin, d.limit[_M_MARGIN], n)
    for metric in (_M_NET, _M_DELTA, _M_VEGA):
        limited = limited or d.limit[metric] == d.limit[metric]
    _both_ways(d, n, out, NET, _M_NET, _M_NET_UP, net)
    _both_ways(d, n, out, DELTA, _M_DELTA, _M_DELTA_UP, o.side * size * i.unit_delta)
    _both_ways(d, n, out, VEGA, _M_VEGA, _M_VEGA_UP, o.side * size * i.unit_vega)
    if opens and d.limit[_M_VAR] == d.limit[_M_VAR]:
        limited = True
        # as if the worst days of what is held and of what is added were the same ones: nothing is taken for a hedge
        if _over(d.value[_M_VAR] + var, d.limit[_M_VAR]):
            fail(out, VAR, (d.soft >> _M_VAR) & 1 != 0, d.value[_M_VAR] + var, d.limit[_M_VAR], n)
    if limited and o.ts_ns - d.exposure_ns > cfg.exposure_age_ns:
        fail(out, STALE_EXPOSURE, False, (o.ts_ns - d.exposure_ns) * 1e-6, cfg.exposure_age_ns * 1e-6, n)

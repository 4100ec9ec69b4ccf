"""The reasons of a verdict, as a person reads them: what was measured against which limit of which node."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from models.gate import state as gs
from models.gate.order_terms import STOPS
from schemas.controls import Check
from schemas.records import Order, Reason

_RATE_METRIC_OF = {Check.MESSAGE_RATE: gs.MESSAGE_COUNT, Check.VALUE_RATE: gs.MESSAGE_VALUE}
_METRIC_OF = {Check.MAX_QUANTITY: gs.ORDER_QUANTITY, Check.MAX_VALUE: gs.ORDER_VALUE, Check.GROSS_EXPOSURE: gs.GROSS,
              Check.NET_EXPOSURE: gs.NET, Check.LONG_EXPOSURE: gs.LONG, Check.SHORT_EXPOSURE: gs.SHORT,
              Check.CONCENTRATION: gs.CONCENTRATION, Check.MARGIN: gs.MARGIN,
              Check.CREDIT: gs.CREDIT, Check.LEVERAGE: gs.LEVERAGE, Check.DELTA: gs.DELTA, Check.VEGA: gs.VEGA,
              Check.VAR: gs.VAR_HIST,
              Check.DAILY_QUANTITY: gs.DAILY_QUANTITY, Check.DAILY_VALUE: gs.DAILY_VALUE,
              Check.REPEATED_EXECUTION: gs.REPEATED, Check.COUNTERPARTY_RATING: gs.RATING}


NO_REASONS: Mapping[Check, tuple[str, str]] = MappingProxyType({})


def _text(value: float) -> str:
    return f"{value:.10g}"


def _known(value: float) -> str:
    return "unknown" if math.isnan(value) else _text(value)


def _terms(order: Order) -> tuple[str, str]:
    found = f"quantity {order.quantity}, price {'none' if order.price is None else order.price}"
    if order.type not in STOPS:
        return found, "a quantity above 0; a price where it is a limit order; both at most 1e18"
    stop = "none" if order.stop_price is None else order.stop_price
    return (f"type {order.type}, {found}, stop_price {stop}",
            "a quantity above 0; a stop_price; a price where it is a stop_limit; each at most 1e18")


#: what is no figure is said in words: (what was found, what was expected), of the order and of what the kernel measured
_WORDS: dict[Check, Callable[[Order, float, float], tuple[str, str]]] = {
    Check.INVALID_ORDER: lambda o, *_: _terms(o),
    Check.UNKNOWN_ACCOUNT: lambda o, *_: (o.account, "an account of the reference data"),
    Check.UNKNOWN_INSTRUMENT: lambda o, *_: (o.instrument, "an instrument of the reference data"),
    Check.HALTED: lambda _, state, __: (gs.STATES[int(state)], "active or reducing"),
    Check.TRADER_NOT_PERMITTED: lambda o, *_: (o.trader, f"a trader of {o.account}"),
    Check.RESTRICTED: lambda o, *_: (o.instrument, "an instrument that is not restricted, expired or matured"),
    Check.NO_REFERENCE_PRICE: lambda _, price, unit: (
        f"price {_known(price)}, value of 1 at a price of 1 {_known(unit)}",
        "a mid, last or prior close; its currency's rate; a curve where it is discounted"),
    Check.LIMIT_NOT_SET: lambda _, value, __: (_text(value), "a maximum order quantity and a maximum order value"),
}


def with_beside(hard: int, beside: Mapping[Check, tuple[str, str]]) -> int:
    """Return what speaks against an order: what the kernel found, and what it cannot see.

    What there is no place for is not unknown, though the kernel does not know it.
    """
    if Check.NO_ROOM in beside:
        hard &= ~(1 << Check.UNKNOWN_ACCOUNT | 1 << Check.UNKNOWN_INSTRUMENT)
    return hard | sum(1 << check for check in beside)


def reasons_of(mask: int, result: Any, order: Order, node_names: list[str], limit_ids: dict[tuple[float, ...], str],
               beside: Mapping[Check, tuple[str, str]] = NO_REASONS, hard: int = -1) -> list[Reason]:
    """Return the reasons of a verdict, the primary one first, each with what was measured against which limit.

    Parameters
    ----------
    order : what reasons say of it that is no figure
    limit_ids : by node, metric and whether it is soft; of windows by the limit itself as well
    hard : those of the mask that a hard limit gives; the others are soft
    beside : what was measured, and its limit, of reasons that the kernel does not know
    """
    out: list[Reason] = []
    while mask:
        check = Check((mask & -mask).bit_length() - 1)
        mask &= mask - 1
        if check in beside:
            measured, expected = beside[check]
            out.append(Reason(code=check.name, measured=measured, limit=expected))
            continue
        node = int(result["node"][check])
        name = node_names[node] if 0 <= node < len(node_names) else None
        value, bound = float(result["measured"][check]), float(result["limit"][check])
        key: tuple[float, ...] = (node, _RATE_METRIC_OF.get(check, _METRIC_OF.get(check, -1)), not hard >> check & 1)
        if check in _RATE_METRIC_OF:
            key = (*key, bound)
        if check == Check.TRADER_NOT_PERMITTED:
            name = f"trader:{order.trader}"
        say = _WORDS.get(check)
        measured, expected = (_text(value), _text(bound)) if say is None else say(order, value, bound)
        out.append(Reason(code=check.name, measured=measured, limit=expected, node=name, limit_id=limit_ids.get(key)))
    return out

"""What is wrong with the terms of an order, by its own fields and those of its instrument: exact, before any figure."""

from __future__ import annotations

from decimal import Context, Decimal

from schemas.numbers import check_decimal
from schemas.records import Instrument, Order
from schemas.units import SHOWN

STOPS = ("stop", "stop_limit")
#: a quotient of any two decimals of the wire has fewer digits
_EXACT = Context(prec=100)


def wrong_terms(order: Order, instrument: Instrument | None) -> tuple[str, str] | None:
    """Return (what was found, what was expected) of an order whose terms contradict each other, or fit no tick or lot.

    None: there is nothing wrong with them.
    """
    if (wrong := _no_figure(order) or _out_of_place(order)) is not None:
        return wrong
    if order.stop_price is not None and order.type not in STOPS:
        return f"type {order.type}, stop_price {order.stop_price}", "a stop_price of type stop or stop_limit alone"
    if order.type == "stop" and order.price is not None:
        return f"type stop, price {order.price}", "no price: it is a market order then; type stop_limit has both"
    if instrument is None:
        return None
    tick, lot = instrument.price_increment, instrument.quantity_increment
    stated = [("price", None if order.type in ("market", "stop") else order.price, tick),
              ("stop_price", order.stop_price, tick), ("quantity", order.quantity, lot)]
    off = [(name, value, step) for name, value, step in stated if not _fits(value, step)]
    if not off:
        return None
    return (", ".join(f"{name} {value}" for name, value, _ in off),
            ", ".join(f"{name}: a multiple of {step}" for name, _, step in off))


def _no_figure(order: Order) -> tuple[str, str] | None:
    """Return what is wrong with a number of an order that nothing could be measured by."""
    for name in ("quantity", "price", "stop_price"):
        value = getattr(order, name)
        if value is not None:
            try:
                check_decimal(value, name)
            except ValueError as error:
                return f"{name} {value}"[:SHOWN], str(error).partition(", was ")[0]
    return None


def _out_of_place(order: Order) -> tuple[str, str] | None:
    """Return what is wrong with an order that states what its type, its end or its action has no use for.

    Whoever sends it takes it for another order than the one that would work.
    """
    if order.type == "market" and order.price is not None:
        return f"type market, price {order.price}"[:SHOWN], "price: none of type market"
    if order.time_in_force != "gtd" and order.expire_ts is not None:
        found = f"time_in_force {order.time_in_force}, expire_ts {order.expire_ts}"
        return found[:SHOWN], "expire_ts: of time_in_force gtd alone"
    if order.action == "new" and order.ref_order_id is not None:
        return f"action new, ref_order_id {order.ref_order_id}"[:SHOWN], "ref_order_id: of a replace or cancel alone"
    return None


def _fits(value: Decimal | None, step: Decimal | None) -> bool:
    """Whether a value is so many steps; what is no number is refused for that."""
    if value is None or step is None or not value.is_finite() or not step.is_finite() or step <= 0:
        return True
    return not _EXACT.remainder(value, step)

"""What is wrong with the terms of an order, by its own fields and those of its instrument: exact, before any figure."""

from __future__ import annotations

from decimal import Context, Decimal

from schemas.records import Instrument, Order

STOPS = ("stop", "stop_limit")
#: a quotient of any two decimals of the wire has fewer digits
_EXACT = Context(prec=100)


def wrong_terms(order: Order, instrument: Instrument | None) -> tuple[str, str] | None:
    """Return (what was found, what was expected) of an order whose terms contradict each other, or fit no tick or lot.

    None: there is nothing wrong with them.
    """
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


def _fits(value: Decimal | None, step: Decimal | None) -> bool:
    """Whether a value is so many steps; what is no number is refused for that."""
    if value is None or step is None or not value.is_finite() or not step.is_finite() or step <= 0:
        return True
    return not _EXACT.remainder(value, step)

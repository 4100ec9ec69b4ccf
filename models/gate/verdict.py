"""What the gate says of one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.controls import Check
from schemas.records import Order, Reason


@dataclass
class Verdict:
    """What the gate says of one order."""

    outcome: str
    reasons: list[Reason]
    warnings: list[Reason]
    #: what is known of `EFFECTS`
    effect: dict[str, float]
    inputs: dict[str, Any]


def unknown_order(order: Order) -> Verdict:
    """Return what is said of a replace that names no working order of its account, or a cancel that names none of it.

    An order of an account is one that was let through for it, whatever became of it since.
    """
    cancel = order.action == "cancel"
    named = order.ref_order_id or (order.order_id if cancel else "")
    expected = f"an order that was let through for {order.account}" if cancel else f"a working order of {order.account}"
    return Verdict("reject", [Reason(code=Check.UNKNOWN_ORDER.name, measured=named, limit=expected)], [], {}, {})

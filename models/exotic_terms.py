"""Terms of barriers and digitals as records state them, and as the kernels of their prices take them."""

from __future__ import annotations

import math

from models.pricing.exotic import BARRIER_KINDS, DIGITAL_KINDS, FIRST_DIGITAL, VANILLA
from schemas.records import Instrument


def exotic_terms(record: Instrument) -> tuple[int, float, float] | None:
    """Return (kind, barrier, rebate or payout) of an option as `exotic_price` takes them; None where terms lack.

    Barriers and digitals are European, and one or the other.
    """
    if record.barrier_kind is None and record.digital_kind is None:
        return VANILLA, math.nan, 0.0
    if record.style == "american" or (record.barrier_kind is not None and record.digital_kind is not None):
        return None
    if record.barrier_kind is not None:
        if record.barrier is None or record.barrier == 0:
            return None
        return BARRIER_KINDS[record.barrier_kind], float(record.barrier), float(record.rebate or 0)
    assert record.digital_kind is not None
    if record.digital_kind == "cash_or_nothing" and record.payout is None:
        return None
    return FIRST_DIGITAL + DIGITAL_KINDS[record.digital_kind], math.nan, float(record.payout or 0)

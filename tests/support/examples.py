"""How many examples a property gets: few in each run, many at night."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("DESKRISK_PROFILE") == "nightly"


def scaled(count: int) -> int:
    """Return ``count`` examples, twenty times as many in ``make nightly``."""
    return count * 20 if NIGHTLY else count

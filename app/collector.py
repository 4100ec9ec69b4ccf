"""How Python's garbage collector runs in a process that must not pause."""

from __future__ import annotations

import gc


def settle_collector() -> None:
    """Leave alone what is there at start, and look less often: what comes is many, short-lived and without cycles.

    The defaults would scan them all day: a full collection of a floor's rows stops a process for 80 ms.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)

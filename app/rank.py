"""Who waits for whom where processors are scarce (decision 0019)."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)
#: niceness and scheduling policy of what waits: rows for analysts give a processor back at once to whatever wants it,
#: aggregates take none away; trades, screens and orders are not listed
RANKS = {"sink": (19, "SCHED_IDLE"), "risk": (10, "SCHED_BATCH")}


def give_way(role: str) -> None:
    """Give this process, and what it starts, the rank of a role."""
    if role not in RANKS:
        return
    nice, policy = RANKS[role]
    os.nice(nice)
    if hasattr(os, policy):  # of Linux
        try:
            os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
        except PermissionError as error:
            log.warning("%s keeps its scheduling policy: %s", role, error)

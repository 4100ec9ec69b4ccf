"""Who waits for whom where processors are scarce (decisions 0019 and 0022)."""

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


def go_first() -> bool:
    """Run this process ahead of all others wherever it has something to do; False where the system does not permit it.

    Linux keeps a twentieth of the time for everybody else, whatever this process does.
    """
    if not hasattr(os, "sched_setscheduler") or len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except OSError as error:  # not permitted, or a kernel that has none
        log.info("no real-time priority: %s; a service manager grants it (LimitRTPRIO=1)", error)
        return False
    log.info("runs at real-time priority")
    return True

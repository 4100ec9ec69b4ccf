"""What takes longest begins first, so that no worker is left alone with it at the end."""

from __future__ import annotations

#: fixtures of installations that the tests of a file share
SHARED_INSTALLATIONS = frozenset(("api", "running", "elsewhere", "desk", "results"))
#: parts of the names of long tests, and of files whose tests share an installation; the longest first
LONGEST = (
    "test_rehearsals", "test_system", "test_gateway_writes", "test_first_run", "test_benchmarks_run", "test_versions", "test_clients",
)


def order_of(nodeid: str) -> int:
    """Return the place of a test among the long ones; all others are behind them."""
    return next((k for k, part in enumerate(LONGEST) if part in nodeid), len(LONGEST))

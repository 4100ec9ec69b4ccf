"""What takes longest begins first, so that no worker is left alone with it at the end."""

from __future__ import annotations

#: files whose tests share an installation, or a copy of the code
SHARE_AN_INSTALLATION = frozenset(("test_gateway_writes", "test_system", "test_versions", "test_clients", "test_rehearsals"))
#: parts of the names of long tests, and of files whose tests share an installation; the longest first
LONGEST = (
    "test_rehearsals", "test_system", "test_gateway_writes", "test_clients", "smoke_size[orders]", "test_first_run",
    "test_gates_that_join_and_leave", "test_every_role_serves_again", "test_a_paused_broker", "test_a_rolling_upgrade", "test_versions",
    "test_working_orders", "test_broker_restart", "test_a_gate_that_was_stopped", "test_standby", "test_roll", "smoke_size[engine]",
    "test_hosts", "test_barriers", "test_scale_out", "test_funding", "test_demo_and_benchmarks", "test_a_topic_deleted", "test_tasks_of_roles",
)


def order_of(nodeid: str) -> int:
    """Return the place of a test among the long ones; all others are behind them."""
    return next((k for k, part in enumerate(LONGEST) if part in nodeid), len(LONGEST))

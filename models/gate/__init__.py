"""The pre-trade gate: state as columns, one kernel that evaluates every control, a naive twin."""

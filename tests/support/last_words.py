"""The last lines of a run: the ten slowest tests, then the names of what failed."""

from __future__ import annotations

from collections import Counter

import pytest

SHOWN = 10


class LastWords:
    """Adds up how long each test took, and remembers which failed."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._failed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a phase of a test: what it sets up is part of its time."""
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            self._failed.setdefault(report.nodeid, report.when or "")

    def pytest_unconfigure(self) -> None:
        """Say it, behind everything else."""
        if len(self._seconds) > SHOWN:
            print(f"\nthe {SHOWN} slowest of {len(self._seconds)} tests ({sum(self._seconds.values()):.0f} s in all):")
            for name, seconds in self._seconds.most_common(SHOWN):
                print(f"  {seconds:6.1f} s  {name}")
        for name, when in self._failed.items():
            print(f"failed: {name}" + ("" if when == "call" else f" ({when})"))

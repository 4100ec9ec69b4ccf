"""Published results of other systems, textbooks and exchanges, through the calculators."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.calc.parity import COMPARISONS, compare_file


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_published_results_are_reproduced(data: Path, name: str) -> None:
    found = compare_file(data / "reference" / f"{name}.json", data / "market")
    assert found.cases and found.comparisons
    assert not found.misses, found.misses[:5]


def test_every_reference_file_is_compared(data: Path) -> None:
    assert {p.stem for p in (data / "reference").glob("*.json")} == set(COMPARISONS)

"""Public cases of other people's bug reports that ask a calculator, each against the value derived beside it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from app.calc import run_lines
from tests.conftest import ROOT

#: cases whose right value is said in words, and what the words ask of the answer
IN_WORDS = {
    "backtest_first_days_amber": lambda got: got["zone_days"] == 5 and "250" in got["zone_basis"],
    "es_below_var_age_weights": lambda got: got["es"] >= got["var"] and abs(got["es"] - 80.45) < 0.01,
    "hhi_single": lambda got: got["hhi"] == 1.0 or bool(got["undefined"]["hhi"]),
}
#: not right yet; whoever mends one takes its name away (an expected failure that passes fails)
NOT_YET: frozenset[str] = frozenset()


def field_cases() -> list[dict[str, Any]]:
    """Return the cases that lie beside this checkout, if there are any."""
    folders = (base / "shared" / name for base in (ROOT.parent, ROOT) for name in ("faults/field", "data/field"))
    found = [json.loads(p.read_text()) for folder in folders for p in sorted(folder.glob("*.json"))]
    return [c for c in {c["id"]: c for c in found}.values() if str(c.get("how", "")).startswith("calc ")]


def hunted_cases() -> list[dict[str, Any]]:
    """Return the cases that were hunted here; each value comes from QuantLib, scipy or arithmetic."""
    return [c for p in sorted((ROOT / "tests" / "golden").glob("hunted_*.json")) for c in json.loads(p.read_text())]


def part(answer: Any, name: str) -> Any:
    """Return what stands under a dotted name."""
    for key in name.split("."):
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def agrees(got: Any, want: Any, within: float) -> bool:
    """Whether an answer has what is expected of it; what an expected object does not name is not compared."""
    if isinstance(want, dict):
        return isinstance(got, dict) and all(agrees(part(got, k), v, within) for k, v in want.items())
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(
            agrees(g, w, within) for g, w in zip(got, want, strict=True))
    if isinstance(want, float) and isinstance(got, int | float):
        return math.isclose(got, want, rel_tol=1e-12, abs_tol=max(within, 1e-12))
    return bool(got == want)


def right(got: dict[str, Any], want: Any, within: float) -> bool:
    """Whether an answer is the right one: figures, or a refusal of a field with its value."""
    if isinstance(want, dict) and "refused" in want:
        error = got.get("error", {})
        return all(error.get(k) == v for k, v in want["refused"].items()) and bool(error.get("expected"))
    if "error" in got:
        return False
    nulls = [k for k, v in want.items() if v is None]
    return agrees(got, want, within) and all(got.get("undefined", {}).get(k) for k in nulls)


FIELD = field_cases()
CASES = FIELD + hunted_cases()


@pytest.mark.skipif(not FIELD, reason="no shared/faults/field beside this checkout")
def test_the_field_cases_are_here() -> None:
    assert len(FIELD) > 40


@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"], marks=[pytest.mark.xfail(strict=True, reason="not mended yet")]
                                               if c["id"] in NOT_YET else []) for c in CASES])
def test_a_calculator_answers_what_was_derived(case: dict[str, Any]) -> None:
    for line in case["input"]:
        (got,) = run_lines(re.sub(r"^calc ", "", case["how"]), [json.dumps(line)])
        if isinstance(case["expected"], str):
            assert IN_WORDS[case["id"]](got), got
            continue
        within = case.get("tolerance") or 0.0
        wanted = [case["expected"], *([case["also_right"]] if "also_right" in case else [])]
        assert any(right(got, w, within) for w in wanted), got

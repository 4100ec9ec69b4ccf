"""Parity: run files of cases through the calculators and count the misses.

A file is JSON: one object with ``kind`` (or ``id``), ``tolerance`` and ``cases``, one case as public bug reports are
kept (``how``, ``input``, ``expected``), or a list of such. The kind says what is compared: one of `COMPARISONS`, whose
cases are as their source printed them, or the name of a calculator, whose cases have ``input`` and ``expected``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.calc.answers import run_lines
from app.calc.line import CALCULATORS
from app.calc.published import COMPARISONS, IN_WORDS, Pair

#: rounding of the comparison itself: one unit in the 12th digit
NOISE = 1e-12


@dataclass
class Parity:
    """Outcome of the cases of one kind."""

    id: str
    cases: int = 0
    comparisons: int = 0
    misses: list[str] = field(default_factory=list)
    #: cases that no calculator answers, or whose right value is words: which, and why
    left_out: list[str] = field(default_factory=list)
    largest: float = 0.0

    def count(self, case: str, pairs: Iterator[Pair], absolute: float, relative: float,
              by_field: dict[str, float]) -> None:
        """Compare one case; what cannot be compared is a miss too."""
        self.cases += 1
        bad, compared = [], 0
        try:
            for name, got, want in pairs:
                compared += 1
                bound = by_field.get(name, absolute)
                gap = _gap(got, want, relative)
                self.largest = max(self.largest, gap if math.isfinite(gap) else 0.0)
                noise = NOISE * (abs(want) if isinstance(want, float) else 1)
                if not gap <= (bound if not relative or bound else relative) + noise:
                    bad.append(f"{name}: got {got!r}, published {want!r}")
        except (LookupError, TypeError, ValueError, ArithmeticError, OSError, AttributeError) as error:
            bad.append(f"not a case of {self.id}: {type(error).__name__}: {error}")
        if not compared and not bad:
            bad.append("nothing to compare")
        self.comparisons += compared
        if bad:
            self.misses.append(f"case {case}: " + "; ".join(bad))


def compare_files(paths: list[Path], market: Path | None = None) -> tuple[list[Parity], dict[str, str]]:
    """Return the parity of every kind of case in some files, and of every file that is none why it is none.

    Parameters
    ----------
    market : folder of the series that some kinds refer to; ``market`` beside a file's folder if absent
    """
    found: dict[str, Parity] = {}
    unknown: dict[str, str] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            unknown[str(path)] = f"expected JSON: {error}"
            continue
        known = [_take(part, path, market, found) for part in (content if isinstance(content, list) else [content])]
        if not any(known):
            unknown[str(path)] = ("expected cases with a kind: one of the kinds or calculators known here (`--kinds`), "
                                  "or how, input and expected")
    return [found[kind] for kind in sorted(found)], unknown


def _take(content: Any, path: Path, market: Path | None, found: dict[str, Parity]) -> bool:
    """Compare what one object holds; False where it holds no cases."""
    if not isinstance(content, dict):
        return False
    if "how" in content and "input" in content and "expected" in content:
        _field_case(content, f"{path.resolve().parent.name}", found)
        return True
    kind, cases = kind_of(content), content.get("cases")
    if kind is None or not isinstance(cases, list) or not cases:
        return False
    out = found.setdefault(kind, Parity(kind))
    absolute, relative, by_field = _tolerance(kind, content.get("tolerance"))
    for number, case in enumerate(cases, 1):
        label = str(case.get("id", number)) if isinstance(case, dict) else str(number)
        if kind in COMPARISONS:
            beside = market or path.resolve().parent.parent / "market"
            out.count(label, COMPARISONS[kind](case, beside), absolute, relative, by_field)
        else:
            own = case.get("tolerance") if isinstance(case, dict) else None
            out.count(label, _expected(kind, case), _tolerance(kind, own)[0] if own else absolute, 0.0, {})
    return True


def kind_of(content: dict[str, Any]) -> str | None:
    """Return what the cases of a file are: ``kind`` says it, or else the ``id``."""
    for name in (content.get("kind"), content.get("id")):
        kind = name.removeprefix("calc ") if isinstance(name, str) else ""
        if kind in COMPARISONS or kind in CALCULATORS:
            return kind
    return None


def _tolerance(kind: str, stated: Any) -> tuple[float, float, dict[str, float]]:
    if kind in IN_WORDS:
        return IN_WORDS[kind]
    number = isinstance(stated, int | float) and not isinstance(stated, bool)
    return (float(stated) if number else 1e-6), 0.0, {}


def _field_case(case: dict[str, Any], folder: str, found: dict[str, Parity]) -> None:
    """Compare one case of a public bug report, where a calculator answers it."""
    how, name = str(case["how"]), str(case.get("id", "?"))
    calc, _, calculator = how.partition(" ")
    if calc != "calc" or calculator not in CALCULATORS:
        out = found.setdefault(f"{folder}: {how.split(' ')[0]}", Parity(f"{folder}: {how.split(' ')[0]}"))
        out.left_out.append(f"{name}: not asked of a calculator ({how})")
        return
    out = found.setdefault(f"{folder}: calc {calculator}", Parity(f"{folder}: calc {calculator}"))
    rights = [right for right in (case["expected"], case.get("also_right")) if isinstance(right, dict)]
    if not rights:
        out.left_out.append(f"{name}: its right value is words: {case['expected']}")
        return
    bound = float(case["tolerance"]) if isinstance(case.get("tolerance"), int | float) else 0.0
    trials = []
    for right in rights:
        trials.append(Parity(out.id))
        trials[-1].count(name, _expected(calculator, case | {"expected": right}), bound, 0.0, {})
    best = next((t for t in trials if not t.misses), trials[0])
    out.cases, out.comparisons = out.cases + 1, out.comparisons + best.comparisons
    out.misses, out.largest = out.misses + best.misses, max(out.largest, best.largest)


def _expected(calculator: str, case: dict[str, Any]) -> Iterator[Pair]:
    """Yield what a calculator answers to the lines of a case beside what is expected: figures, or a refused field."""
    lines, want = case["input"], case["expected"]
    for line in lines if isinstance(lines, list) else [lines]:
        (got,) = run_lines(calculator, [json.dumps(line)])
        if "refused" in want:
            field_ = got.get("error", {}).get("field")
            yield "refused", field_ or "an answer", want["refused"]["field"]
            continue
        for name, value in want.items():
            yield from _parts(name, _part(got, name) if "error" not in got else got["error"], value)
            if value is None:
                yield f"reason of {name}", bool(got.get("undefined", {}).get(name)), True


def _part(answer: Any, path: str) -> Any:
    """Return what stands under a dotted name."""
    for key in path.split("."):
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def _parts(name: str, got: Any, want: Any) -> Iterator[Pair]:
    """Yield every figure of an expected value; what it does not name is not compared."""
    if isinstance(want, dict) and isinstance(got, dict):
        for k, v in want.items():
            yield from _parts(f"{name}.{k}", _part(got, k), v)
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            yield from _parts(f"{name}[{i}]", g, w)
    else:
        yield name, got, want


def _gap(got: Any, want: Any, relative: float) -> float:
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return math.inf
        return max((_gap(g, w, relative) for g, w in zip(got, want, strict=True)), default=0.0)
    if isinstance(want, bool) or not isinstance(want, int | float):
        return 0.0 if got == want else math.inf
    if isinstance(got, bool) or not isinstance(got, int | float):
        return math.inf
    return abs(got - want) / (abs(want) if relative and want else 1.0)

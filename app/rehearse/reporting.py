"""What came of scenarios: a line each, and where one differs the step, what was expected and what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.rehearse.scenario import Scenario, Step


class Skipped(Exception):
    """A scenario cannot be performed here; why."""


@dataclass
class Result:
    """What came of one scenario."""

    scenario: Scenario
    seconds: float = 0.0
    skipped: str = ""
    step: int = 0
    line: int = 0
    what: str = ""
    wrong: list[str] = field(default_factory=list)
    #: a role did not read on: the installation is of no use to others
    unsettled: bool = False

    @property
    def ok(self) -> bool:
        """Whether all was as expected."""
        return not self.wrong

    def differs(self, number: int, step: Step | None, wrong: Sequence[str]) -> None:
        """Note where it differs."""
        self.step, self.line = number, step.line if step is not None else self.scenario.line
        self.what, self.wrong = step.said() if step is not None else "reference", list(wrong)

    @property
    def state(self) -> str:
        """Return ok, different or skipped."""
        return "different" if self.wrong else "skipped" if self.skipped else "ok"

    def lines(self) -> list[str]:
        """Return the lines of a report."""
        s = self.scenario
        head = f"{self.state:9}  {s.name}  ({s.file}:{s.line}, {self.seconds:.1f} s)"
        if self.skipped and not self.wrong:
            return [f"{head}: {self.skipped}"]
        if self.ok:
            return [head]
        return [head, f"           step {self.step} (line {self.line}): {self.what}",
                *(f"           {line}" for line in self.wrong)]

    def fields(self) -> dict[str, Any]:
        """Return it as JSON."""
        s = self.scenario
        out: dict[str, Any] = {"name": s.name, "file": s.file, "line": s.line, "state": self.state,
                               "seconds": round(self.seconds, 2)}
        if self.skipped:
            out["why"] = self.skipped
        if self.wrong:
            out |= {"step": self.step, "step_line": self.line, "what": self.what, "differences": self.wrong}
        return out

"""What the how-to shows in Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.rehearse.scenario import read_text

HOW_TO = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to.md"
BLOCKS = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL)


def test_the_gate_as_a_library_refuses_what_exceeds_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [b for b in BLOCKS if "GateBook(" in b]
    exec(block, {})
    assert capsys.readouterr().out.startswith("reject [('GROSS_EXPOSURE', '10400250', '10000000')]")


def test_the_rehearsal_of_limits_can_be_read() -> None:
    (text,) = [b for b in re.findall(r"```yaml\n(.*?)```", HOW_TO.read_text(), re.DOTALL) if "steps:" in b]
    (scenario,) = read_text(text, "limits.yaml")
    assert [step.kind for step in scenario.steps] == ["limit", "tick", "order", "order", "control", "expect"]

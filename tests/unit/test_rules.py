"""The coverage matrix says nothing that is not there: every rule cited is one of its rows, every test it names exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from schemas.controls import MEANING, Check
from schemas.rules import RULES, Rule, rules_cited

TESTS = Path(__file__).resolve().parent.parent


def test_a_citation_names_rules_of_the_matrix() -> None:
    assert rules_cited("RTS 6 15(4), 15(5); FIA 1.2, 4.2; 15c3-5(d)") == ["RTS 6 15(4)", "RTS 6 15(5)", "FIA 1.2", "FIA 4.2", "15c3-5(d)"]
    known = {r.name for r in RULES}
    assert len(known) == len(RULES)
    assert {rule for _, cited in MEANING.values() for rule in rules_cited(cited)} <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_every_rule_is_answered_or_said_not_to_be(rule: Rule) -> None:
    cited = [c for c in Check if rule.name in rules_cited(MEANING[c][1])]
    assert cited or (rule.answer and rule.tests) or rule.beyond
    assert not rule.answer or rule.tests
    for named in rule.tests:
        file, _, test = named.partition("::")
        assert test in {n.name for n in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(n, ast.FunctionDef)}, named

"""Published results of other systems, textbooks and exchanges, and cases of bug reports, through the calculators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.calc.parity import compare_files
from app.calc.published import COMPARISONS
from app.cli import cli


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_published_results_are_reproduced(data: Path, name: str) -> None:
    (found,), unknown = compare_files([data / "reference" / f"{name}.json"])
    assert found.cases and found.comparisons and not unknown
    assert not found.misses, found.misses[:5]


def test_every_reference_file_is_compared(data: Path) -> None:
    assert {p.stem for p in (data / "reference").glob("*.json")} == set(COMPARISONS)


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("hunted_*.json")), ids=lambda p: p.stem)
def test_reports_of_others_are_answered_right(path: Path) -> None:
    """Bug reports of other projects, each with a value that follows from a library or from arithmetic (docs/field-log.md)."""
    found, unknown = compare_files([path])
    assert not unknown and sum(p.cases for p in found) == len(json.loads(path.read_text())) > 20
    assert not (missed := [m for p in found for m in p.misses]), missed[:5]


def test_cases_come_from_anywhere_with_a_kind(data: Path, tmp_path: Path) -> None:
    gilts = json.loads((data / "reference" / "bonds_gilt_yields.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps(gilts | {"id": "of my own", "kind": "bonds_gilt_yields"}))
    line = {"n": 250, "exceptions": 5, "p": 0.01}
    cases = [{"id": "a", "input": line, "expected": {"lr_pof": 1.95681}, "tolerance": 1e-5}, {"input": [line], "expected": {"lr_pof": 1.9}},
             {"input": {"n": 250}, "expected": {"refused": {"field": "exceptions"}}}, {"input": line}, {"input": line, "expected": {}}]
    (tmp_path / "kupiec.json").write_text(json.dumps({"kind": "kupiec", "tolerance": 1e-6, "cases": cases}))
    report = {"how": "calc kupiec", "input": [line], "expected": {"lr_pof": 2.0}, "also_right": {"lr_pof": 1.956809831}, "tolerance": 1e-6}
    (tmp_path / "reports.json").write_text(json.dumps([report | {"id": "x"}, {"id": "y", "how": "rehearsal", "input": [], "expected": {}}]))
    found, unknown = compare_files(sorted(tmp_path.glob("*.json")))
    by = {p.id: p for p in found}
    folder = tmp_path.name
    assert not unknown and set(by) == {"bonds_gilt_yields", "kupiec", f"{folder}: calc kupiec", f"{folder}: rehearsal"}
    assert by["bonds_gilt_yields"].cases == 22 and not by["bonds_gilt_yields"].misses
    assert (by["kupiec"].cases, [m.split(":")[0] for m in by["kupiec"].misses]) == (5, ["case 2", "case 4", "case 5"])
    assert not by[f"{folder}: calc kupiec"].misses and len(by[f"{folder}: rehearsal"].left_out) == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[1]", '{"kind": "nonsense", "cases": [{}]}', '{"kind": "kupiec", "cases": []}',
                                     '{"id": "z", "how": "rehearsal", "input": [], "expected": {}}'])
def test_a_command_that_recognised_nothing_fails(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    for given in ([str(tmp_path)], [str(tmp_path / "a.json")]):
        done = CliRunner().invoke(cli, ["parity", *given])
        assert done.exit_code == 1 and "none of 1 files" in done.output, done.output
    empty = tmp_path / "empty"
    empty.mkdir()
    assert [CliRunner().invoke(cli, ["parity", *given]).exit_code for given in ([], [str(empty)], [str(tmp_path / "no")])] == [1, 1, 2]


def test_a_file_that_is_named_and_none_fails_beside_good_ones(data: Path, tmp_path: Path) -> None:
    good, bad = data / "reference" / "fx_forward.json", tmp_path / "a.json"
    bad.write_text("{}")
    done = CliRunner().invoke(cli, ["parity", str(good), str(bad)])
    assert done.exit_code == 1 and "no file of cases" in " ".join(done.output.split())
    with_folder = CliRunner().invoke(cli, ["parity", "--json", str(good), str(tmp_path)])
    told: dict[str, Any] = json.loads(with_folder.stdout)
    assert with_folder.exit_code == 0 and list(told["unknown_files"]) == [str(bad)] and told["cases"] == 1

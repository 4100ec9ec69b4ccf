"""Scenario files: what is wrong with one is said with its line; values are compared, names are kept apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import cli
from app.rehearse.names import Names, prefix_of
from app.rehearse.performing import Rehearsal, _judged
from app.rehearse.reading import parse
from app.rehearse.reporting import Result
from app.rehearse.runner import summary
from app.rehearse.scenario import ScenarioError, read_text
from app.rehearse.users import Said, refused
from app.rehearse.values import ABSENT, agrees, at_path, differences, moment, with_times

TRADE = "{trade_id: T, account: A, instrument: X, side: buy, quantity: '1', price: '2'}"


@pytest.mark.parametrize(("text", "line", "says"), [
    ("name: a\nsteps:\n  - trade: {trade_id: T, acount: A}\n", 3, "'acount' is not known; 'account' is"),
    ("name: a\nsteps:\n  - trade:\n      trade_id: T\n      fees: [{amount: '1', ccy: USD}]\n", 5, "Fee: 'ccy' is not known"),
    ("name: a\nsteps:\n  - tick: {instrument: X}\n  - tik: {instrument: X}\n", 4, "'tik' is not known; 'tick' is"),
    (f"name: a\nsteps:\n  - trade: {TRADE}\n    expct: 1\n", 4, "'expct' is not known"),
    ("name: a\nsteps:\n  - expect: {positon: {account: A}}\n", 3, "expected one of position"),
    ("name: a\nsteps:\n  - expect: {position: {account: A, book: B}}\n", 3, "'book' is not known"),
    ("name: a\nsteps:\n  - order: {order_id: O}\n    expect: {outcom: accept}\n", 4, "'outcome' is"),
    ("name: a\nsteps:\n  - order: {order_id: O}\n    via: fax\n", 4, "via: expected one of topic"),
    ("name: a\nsteps:\n  - sleep_s: 6\n", 3, "expected 0 to 5"),
    ("name: a\nsteps:\n  - kill: gate\n", 3, "alone: true"),
    ("name: a\nhistory: |\n  date,X\nsteps:\n  - sleep_s: 1\n", 2, "alone: true"),
    ("name: a\nsettings: {levls: [firm]}\nsteps:\n  - sleep_s: 1\n", 2, "'levels' is"),
    ("name: a\nreference:\n  accounts:\n    - {account: A, boook: B}\nsteps:\n  - sleep_s: 1\n", 4, "'book' is"),
    ("name: a\nsteps:\n  - sleep_s: 1\nname: b\n", 4, "appears twice"),
    ("steps:\n  - sleep_s: 1\n", 1, "name: expected a text"),
    ("name: a\n\nsteps: []\n", 3, "steps: expected a list"),
    ("name: a\nsteps:\n  - http: {method: GET, path: /, as: king}\n", 3, "as: expected one of viewer"),
    ("name: a\nsteps:\n  - raw: {topic: trades}\n", 3, "expected text or base64"),
    ("name: a\nsteps: [}\n", 2, "no YAML"),
])
def test_what_is_wrong_with_a_scenario_is_said_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(ScenarioError) as told:
        read_text(text, "f.yaml")
    assert told.value.line == line and says in told.value.why, told.value


def test_text_stays_text_and_numbers_are_those_of_json() -> None:
    (found,) = parse("a: [no, on, 0700, 12:30, 2026-12-31, 1_000, .5, NaN, ~, null, '1', 1, -2.5e3, 1e-4, true]", "f")
    assert found["a"] == ["no", "on", "0700", "12:30", "2026-12-31", "1_000", ".5", "NaN", None, None, "1", 1, -2500.0, 1e-4, True]


def test_a_file_holds_several_scenarios() -> None:
    one, two = read_text("name: a\nsteps:\n - sleep_s: 1\n---\nname: b\nalone: true\nsteps:\n - kill: gate\n")
    assert (one.name, two.name, two.line, two.steps[0].line) == ("a", "b", 5, 8)


@pytest.mark.parametrize(("expected", "seen", "same"), [
    (80, "80", True), (80, "80.000", True), (80, 80.0000001, False), (0, 5e-17, True), (0, 1e-3, False), ("80", 80, False),
    ("0.00000001", "0.00000001", True), (None, None, True), (None, ABSENT, False), ("absent", ABSENT, True),
    ("absent", None, False), ("any", 0, True), ("any", None, False), ("any", ABSENT, False), ({"above": 5}, 6, True),
    ({"above": 5}, "5", False), ({"above": 5, "below": 7}, 6, True), ({"below": 5}, None, False), ({"below": 0}, "NaN", False),
    ({"contains": "late"}, "too late", True), ({"contains": "X"}, ["X", "Y"], True), ({}, {}, True), ({}, {"BNB": 1}, False),
    ({"BNB": 0.1}, {"BNB": 0.1}, True), ([1, 2], ["1", 2], True), (True, 1, False), (1, True, False),
])
def test_when_a_value_is_the_expected_one(expected: Any, seen: Any, same: bool) -> None:
    assert agrees(expected, seen) is same


def test_within_is_relative_and_paths_go_through_lists_and_names_with_points() -> None:
    seen = {"rows": [{"q": "100"}], "fees": {"BTC.X": 1}, "a.b": {"c": 2}}
    assert differences({"rows.0.q": 100.5}, seen, 0.01) == [] and at_path(seen, "rows.-1.q") == "100"
    assert at_path(seen, "fees.BTC.X") == 1 and at_path(seen, "a.b.c") == 2 and at_path(seen, "rows.3.q") is ABSENT
    assert differences({"rows.0.q": 90}, seen) == ['rows.0.q: expected 90, seen "100"']


def test_words_of_times() -> None:
    now = 1_800_000_000 * 10**9
    assert moment("now-5s", now) == now - 5 * 10**9 and moment("now", now) == now and moment("nowhere", now) is None
    assert with_times({"expiry": "now+10d", "l": [{"ts": "now+1.5h"}]}, now) == {
        "expiry": "2027-01-25", "l": [{"ts": now + 5400 * 10**9}]}


@given(st.integers(0, 36**3 - 1), st.integers(0, 36**3 - 1), st.text("ABCQ019", min_size=1, max_size=6))
def test_prefixes_keep_scenarios_apart_and_come_off(a: int, b: int, name: str) -> None:
    one, other = Names(prefix_of(a)), Names(prefix_of(b))
    assert (one.put(name) == other.put(name)) == (a == b) and len(prefix_of(a)) == 4
    assert one.put(name).startswith(one.prefix) and one.put(name)[4:] == name


def test_prefixes_are_put_where_names_stand_and_nowhere_else() -> None:
    names = Names("Q001", ("book", "region", "firm"))
    names.declare({"instruments": [{"instrument": "X", "currency": "USD"}], "accounts": [{"account": "A", "book": "B", "region": "EMEA"}]})
    assert names.record({"account": "A", "instrument": "X", "side": "buy", "currency": "USD", "node": "desk:D", "region": "EMEA", "traders": ["t1"]}) == {
        "account": "Q001A", "instrument": "Q001X", "side": "buy", "currency": "USD", "node": "desk:Q001D", "region": "Q001EMEA", "traders": ["Q001t1"]}
    assert names.record({"scope": "all", "node": "firm"}) == {"scope": "all", "node": "firm"}
    assert names.record({"underlying": "USD"}) == {"underlying": "USD"} and names.record({"underlying": "X"})["underlying"] == "Q001X"
    assert names.values({"a": ["X", "XY", {"n": "account:A", "t": "A B"}]}) == {"a": ["Q001X", "XY", {"n": "account:Q001A", "t": "A B"}]}
    assert names.path("/api/limits/L1?scope=book:B") == "/api/limits/Q001L1?scope=book:Q001B"
    assert names.braces('{"account":"{A}","n":{"x":1}}') == '{"account":"Q001A","n":{"x":1}}'
    assert names.file("i.csv", "instrument,currency\nX,USD\n\"X\",\"a,b\"\n") == "instrument,currency\nQ001X,USD\nQ001X,\"a,b\"\n"
    assert names.file("i.yaml", "- {instrument: X, currency: USD}\n- instrument: 'X'\n") == "- {instrument: Q001X, currency: USD}\n- instrument: 'Q001X'\n"
    assert names.command(["positions", "--account", "A", "--scope=book:B"]) == ["positions", "--account", "Q001A", "--scope=book:Q001B"]
    assert names.off({"k": ["desk:Q001D", 1]}) == {"k": ["desk:D", 1]}


@pytest.mark.parametrize(("expect", "answer", "wrong"), [
    ({"outcome": "accept"}, {"outcome": "accept"}, ""),
    ({"outcome": "accept"}, {"outcome": "reject", "reasons": [{"code": "STOPPED", "measured": "halted", "limit": "active"}]}, "seen reject (STOPPED: halted of active)"),
    ({"outcome": "reject", "codes": ["A", "B"]}, {"outcome": "reject", "reasons": [{"code": "A"}, {"code": "B"}]}, ""),
    ({"outcome": "reject", "codes": ["B"]}, {"outcome": "reject", "reasons": [{"code": "A"}, {"code": "B"}]}, "codes: expected B, seen A, B"),
    ({"outcome": "accept", "warnings": ["W"]}, {"outcome": "accept", "warnings": []}, "warnings: expected W, seen none"),
    ({"refused": "side"}, {"error": "side: expected buy or sell"}, ""), ({"refused": "side"}, {"outcome": "accept"}, "refused"),
    ({"outcome": "accept"}, {"error": "no"}, "expected a decision"),
])
def test_a_decision_is_judged(expect: dict[str, Any], answer: dict[str, Any], wrong: str) -> None:
    said = " ".join(_judged(expect, answer))
    assert (wrong in said) if wrong else said == ""


def test_a_refusal_names_file_line_and_field() -> None:
    said = Said(1, "", "instruments.csv:3: currency: expected capital letters, was 'usd'")
    assert refused(said, {"file": "instruments.csv", "line": 3, "field": "currency"}) == []
    assert len(refused(said, {"line": 30, "field": "curr"})) == 2 and refused(Said(0, "", ""), {}) != []


class _NoInstallation:
    """Only calculators can be asked here."""

    is_embedded = True

    class waiting:
        """Nothing is waited for."""

        @staticmethod
        async def settle(rounds: int) -> None:
            """All is settled."""


def test_a_wrong_expectation_differs_with_step_expected_and_seen() -> None:
    (scenario,) = read_text("name: a\nsteps:\n  - calc: {name: option, line: {S: 100, K: 100, t: 1, vol: 0.2, r: 0, q: 0, right: call}}\n"
                            "    expect: {is: {price: 7.9655674554}, within: 1e-6}\n"
                            "  - calc: {name: option, line: {S: 100, K: 100, t: 1, vol: 0.2, r: 0, q: 0, right: call}}\n"
                            "    expect: {is: {price: 9}}\n")
    result: Result = asyncio.run(Rehearsal(_NoInstallation(), scenario, Names("")).run())  # type: ignore[arg-type]
    assert not result.ok and (result.step, result.line) == (2, 5), result.lines()
    assert result.wrong[0].startswith("price: expected 9, seen 7.96")
    found = summary([result])
    assert found["different"] == 1 and found["results"][0]["differences"] == result.wrong
    assert "step 2 (line 5): calc" in result.lines()[1]


def test_a_scenario_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nsteps:\n  - nothing: 1\n")
    done = CliRunner().invoke(cli, ["rehearse", str(tmp_path), "--embedded"])
    assert done.exit_code == 1 and "a.yaml:3" in done.output.replace("\n", "")

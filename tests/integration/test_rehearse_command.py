"""The command `rehearse` as a firm's scripts call it: exit codes, a line a scenario as it ends, what is skipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import clickhouse_server
from app.brokers import Broker
from app.cli import cli
from tests.integration.harness import ROOT

pytestmark = pytest.mark.kafka
CALCULATED = """name: right
steps:
  - calc: {name: option, line: {S: 100, K: 100, t: 1, vol: 0.2, r: 0, q: 0, right: call}}
    expect: {is: {price: 7.966}, within: 1e-4}
---
name: wrong
steps:
  - calc: {name: option, line: {S: 100, K: 100, t: 1, vol: 0.2, r: 0, q: 0, right: call}}
    expect: {is: {price: 9}}
"""
LIVE = """name: held
reference:
  instruments: [{instrument: X, asset_class: equity, currency: USD, quantity_increment: "1"}]
  accounts: [{account: A, book: B, desk: D, strategy: S, fund: F, nav: "1000"}]
steps:
  - trade: {trade_id: T, account: A, instrument: X, side: buy, quantity: "3", price: "2"}
  - expect: {position: {account: A, instrument: X}, is: {quantity: %s}}
---
name: asks the store
steps:
  - expect: {sql: "select 1", is: {0.0: 1}}
"""


def test_calculators_need_no_broker_and_a_difference_ends_with_3(tmp_path: Path) -> None:
    """A true process, as a script starts it."""
    (tmp_path / "a.yaml").write_text(CALCULATED)
    done = subprocess.run([sys.executable, "-m", "app", "rehearse", str(tmp_path), "--json"], cwd=ROOT, capture_output=True, text=True)
    right, wrong, found = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 3, done.stderr
    assert (right["state"], wrong["state"], wrong["step"]) == ("ok", "different", 1) and "expected 9" in wrong["differences"][0]
    assert (found["ok"], found["different"], found["skipped"]) == (1, 1, 0)


@pytest.mark.parametrize(("quantity", "code"), [(3, 0), (4, 3)])
def test_what_is_seen_decides_the_exit_code_and_without_a_store_sql_is_skipped(
        broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantity: int, code: int) -> None:
    (tmp_path / "a.yaml").write_text(LIVE % quantity)
    monkeypatch.setattr(clickhouse_server, "fetch", lambda: None)
    done = CliRunner().invoke(cli, ["rehearse", str(tmp_path), "--brokers", broker.address])
    assert done.exit_code == code, done.output
    assert ("1 as expected, 0 different, 1 skipped" if code == 0 else "quantity: expected 4, seen \"3\"") in done.output
    assert "no ClickHouse: npm is not here" in done.output

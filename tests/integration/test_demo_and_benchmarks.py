"""What a newcomer runs first, and the benchmarks at smoke size, so that neither rots."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import ROOT
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka


def last_json(*arguments: str, timeout: float = 3 * PATIENCE_S, **environment: str) -> dict[str, object]:
    """Run a command; return the JSON object on its last line."""
    done = subprocess.run([sys.executable, "-m", "app", *arguments], cwd=ROOT, env=os.environ | environment, text=True,
                          capture_output=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_up_writes_the_ready_file_and_ends_on_a_signal(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    process = subprocess.Popen([sys.executable, "-m", "app", "up", "--embedded", "--ready-file", str(ready), "--data-dir",
                                str(tmp_path / "data"), "--gateway-port", "0"], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        addresses = json.loads(ready.read_text())
        assert addresses["gateway"].startswith("http://127.0.0.1:") and addresses["brokers"]
        doctor = subprocess.run([sys.executable, "-m", "app", "doctor", "--json", "--brokers", addresses["brokers"]],
                                cwd=ROOT, capture_output=True, text=True, check=True)
        states = {item["what"]: item["state"] for item in json.loads(doctor.stdout)}
        assert states["brokers"] == states["topics"] == "ok"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


#: what each benchmark must say at smoke size
SAID: dict[str, Callable[[Any], bool]] = {
    "engine": lambda found: found["trades"] == 60_000 and bool(found["result_hash"]),
    "restore": lambda found: found["rows"] == 100_000,
    "risk": lambda found: found["gap_to_full"] < 1e-9 and found["after_trade_share_of_full_work"] < 0.03,
    "gate": lambda found: found["batch_orders_per_s"] > 0 and found["kernel_p99_us"] > 0,
    "orders": lambda found: found["unanswered"] == 0 and found["kafka_p99_ms"] > 0,
}


@pytest.mark.parametrize("name", SAID)
def test_a_benchmark_runs_at_smoke_size(name: str) -> None:
    more = ["--no-peers"] if name == "engine" else []
    found = last_json("bench", name, "--size", "smoke", "--json", *more, DESKRISK_BENCH_TRADES="60000")
    assert SAID[name](found), found


def test_reference_files_are_checked_with_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "instruments.csv").write_text("instrument,asset_class,currency,multiplier\nX,equity,USD,1\nY,share,USD,1\n"
                                              "X,equity,USD,1\n")
    (tmp_path / "accounts.yaml").write_text("- {account: A, book: B, desk: D, strategy: S}\n")
    done = subprocess.run([sys.executable, "-m", "app", "reference", "load", str(tmp_path), "--brokers", "127.0.0.1:1"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    for text in ("instruments.csv:3", "share", "instruments.csv:4: instrument: expected each record once, 'X' appears twice", "accounts.yaml:1", "fund"):
        assert text in done.stderr, (text, done.stderr)

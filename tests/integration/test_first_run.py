"""What a newcomer's first minute must not contain: a process that stops to compile while trades wait."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.integration.harness import ROOT
from tests.support.patience import PATIENCE_S


def test_nothing_is_left_to_compile_once_the_install_is_done(tmp_path: Path) -> None:
    """Numba compiles a kernel for each kind of argument; `deskrisk warm` (part of the install) must have met them all.

    The demo itself is what runs: it ends by itself and reports what it did.
    """
    home = Path(os.environ["NUMBA_CACHE_DIR"])
    assert (home / "compiled" / "gate").is_file(), "the install compiles: `make install`"
    shutil.copytree(home, tmp_path / "kernels")  # other tests compile kinds of their own beside this one
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "DESKRISK_DATA_DIR": str(tmp_path / "data")}
    warmed = {p.name for p in (tmp_path / "kernels").rglob("*.nbc")}
    assert len(warmed) > 50
    done = subprocess.run([sys.executable, "-m", "app", "demo", "--for", "10", "--no-browser", "--json"], cwd=ROOT, env=environment,
                          text=True, capture_output=True, timeout=3 * PATIENCE_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["errors"] == 0 and result["orders"] > 10
    assert result["positions"] > 2_000 and result["trades"] > 4_800 and result["ticks"] > 5_000
    assert result["stream_rows"] > 0 and result["as_of_steps_back"] == 0 and result["trade_to_stream_ms_p99"] is not None
    assert {p.name for p in (tmp_path / "kernels").rglob("*.nbc")} - warmed == set()

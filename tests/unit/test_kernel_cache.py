"""Compiled kernels are never older than their helpers, and count no references: what Numba alone would not hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.errors import NumbaError

from models.jit import allocating_kernel, kernel
from models.kernel_cache import CheckedFiles
from models.position_pack import PACKED_LOT_DTYPE, collect_lots
from models.position_state import PartitionPositions

ROOT = Path(__file__).resolve().parent.parent.parent
HELPER = "from models.jit import hot_kernel\n@hot_kernel\ndef step(x: int) -> int:\n    return x + {step}\n"
CALLER = ("from models import columns\nfrom models.helper import step\nfrom models.jit import kernel\n@kernel\n"
          "def run(x: int) -> int:\n    return step(x) * columns.WIDTH\n")


def sources(home: Path, step: int, width: int) -> Path:
    """Write a package with a kernel, its helper in another file, and a constant of a third file."""
    models = home / "models"
    models.mkdir(exist_ok=True, parents=True)
    for name in ("jit.py", "kernel_cache.py"):
        shutil.copy(ROOT / "models" / name, models / name)
    for name, text in {"__init__": "", "caller": CALLER, "helper": HELPER.format(step=step), "columns": f"WIDTH = {width}\n"}.items():
        (models / f"{name}.py").write_text(text)
    return home


def run(home: Path, cache: Path) -> int:
    done = subprocess.run([sys.executable, "-c", "from models.caller import run; print(run(100))"], cwd=home, text=True,
                          env=os.environ | {"PYTHONPATH": str(home), "NUMBA_CACHE_DIR": str(cache)},
                          capture_output=True, check=True)
    return int(done.stdout)


def test_what_a_kernel_uses_of_other_files_is_compiled_again_when_it_changes(tmp_path: Path) -> None:
    """Numba would go on with the old helper, and with old constants: the columns of the release before."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    assert run(sources(home, step=1, width=1), cache) == 101
    assert run(sources(home, step=20, width=1), cache) == 120
    assert run(sources(home, step=20, width=2), cache) == 240
    assert len(list(cache.rglob("*.nbc"))) == 3


def test_a_compiled_kernel_that_is_damaged_is_compiled_again(tmp_path: Path) -> None:
    """A power cut leaves files without their end; Numba would raise, or run what a flipped byte makes of the code."""
    home, cache = sources(tmp_path / "home", step=1, width=3), tmp_path / "cache"
    assert run(home, cache) == 303
    code, index = sorted(cache.rglob("*.nb?"))
    good = code.read_bytes()
    for bad in (good[: len(good) // 2], b"", good[:900] + bytes([good[900] ^ 4]) + good[901:]):
        code.write_bytes(bad)
        if not bad:
            index.write_bytes(b"")
        assert run(home, cache) == 303
        assert len(code.read_bytes()) == len(good) and index.stat().st_size


@pytest.mark.parametrize("seed", range(8))
def test_files_of_kernels_are_as_they_were_written_or_as_if_not_there(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = CheckedFiles(str(tmp_path), "kernel", "stamp")
    files.save("one", ("code", b"1" * 50))
    files.save("other", ("code", b"2" * 50))
    good = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for path, data in good.items():
        for _ in range(60):
            at = int(rng.integers(len(data)))
            flipped = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
            path.write_bytes(data[:at] if rng.random() < 0.3 else flipped)
            for key, value in (("one", b"1" * 50), ("other", b"2" * 50)):
                assert files.load(key) in (None, ("code", value)), (path.name, at)
        path.write_bytes(data)
    assert files.load("one") and files.load("other")


def test_the_same_sources_elsewhere_are_not_compiled_again(tmp_path: Path) -> None:
    """A release that leaves the kernels as they are starts at once, wherever it is installed."""
    cache = tmp_path / "cache"
    assert run(sources(tmp_path / "one", step=1, width=1), cache) == 101
    compiled = [p.stat().st_mtime_ns for p in cache.rglob("*.nb?")]
    assert run(sources(tmp_path / "other", step=1, width=1), cache) == 101
    assert len(compiled) == 2 and [p.stat().st_mtime_ns for p in cache.rglob("*.nb?")] == compiled


def test_a_command_outside_of_make_finds_what_make_has_compiled(tmp_path: Path) -> None:
    """It would compile for a minute or two before it says a word."""
    copied = sources(tmp_path, step=1, width=1)
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"HOME": str(tmp_path / "someone")}
    for home, expected in ((ROOT, ROOT / ".cache" / "numba"), (copied, tmp_path / "someone" / ".cache" / "deskrisk" / "numba")):
        done = subprocess.run([sys.executable, "-c", "import models.jit, numba; print(numba.config.CACHE_DIR)"], cwd=home, text=True,
                              env=environment | {"PYTHONPATH": str(home)}, capture_output=True, check=True)
        assert done.stdout.strip() == str(expected)


def test_kernels_count_no_references() -> None:
    """An atomic count for every column at every call was most of a fold (decision 0021)."""
    state = PartitionPositions(0).arrays
    arguments = state, np.zeros(0, np.int32), np.zeros(0, PACKED_LOT_DTYPE)
    found = {}
    for nrt in (collect_lots.targetoptions["_nrt"], True):
        compiled = numba.jit(**collect_lots.targetoptions | {"_nrt": nrt})(collect_lots.py_func)
        compiled(*arguments)
        found[nrt] = "NRT_incref" in compiled.inspect_llvm(compiled.signatures[0])
    assert found == {False: False, True: True}


def test_a_kernel_that_allocates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # one that a run before compiled would be loaded

    def allocates(n: int) -> float:
        return float(np.zeros(n).sum())

    with pytest.raises(NumbaError, match="built-in function zeros"):
        kernel(allocates)(3)
    assert allocating_kernel(allocates)(3) == 0.0

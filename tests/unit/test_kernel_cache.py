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
from models.position_state import PACKED_LOT_DTYPE, PartitionPositions, collect_lots

ROOT = Path(__file__).resolve().parent.parent.parent
HELPER = "from models.jit import hot_kernel\n@hot_kernel\ndef step(x: int) -> int:\n    return x + {n}\n"
CALLER = ("from models.helper import step\nfrom models.jit import kernel\n@kernel\ndef run(x: int) -> int:\n"
          "    return step(x)\n")


def test_a_helper_changed_in_another_file_is_compiled_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "__init__.py").write_text("")
    shutil.copy(ROOT / "models" / "jit.py", models / "jit.py")
    (models / "caller.py").write_text(CALLER)
    found = []
    for n in (1, 20):
        (models / "helper.py").write_text(HELPER.format(n=n))
        done = subprocess.run([sys.executable, "-c", "from models.caller import run; print(run(100))"], cwd=tmp_path,
                              env=os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
                              capture_output=True, text=True, check=True)
        found.append(int(done.stdout))
    assert found == [101, 120]
    assert len(list((tmp_path / "cache").iterdir())) == 2


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

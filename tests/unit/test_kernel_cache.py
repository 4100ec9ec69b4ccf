"""Compiled kernels are never older than their helpers: Numba's own cache looks at one file at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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

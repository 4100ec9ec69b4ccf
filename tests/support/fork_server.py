"""Commands of the product in processes that start fast: see `app.forking`."""

from __future__ import annotations

import os
import subprocess
import threading

from app.forking import SERVER, ForkedProcess

__all__ = ["SERVER", "ForkedProcess", "run_command"]


def run_command(*arguments: str, timeout: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``deskrisk ARGUMENTS`` to its end; return what it printed and its exit code, as ``subprocess.run`` does."""
    process = SERVER.fork(arguments, os.environ | environment, separate_errors=True)
    errors = list[str]()
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    try:
        output = process.stdout.read()
        code = process.wait(timeout)
    finally:
        killer.cancel()
    reader.join(5)
    return subprocess.CompletedProcess(arguments, code, output, "".join(errors))

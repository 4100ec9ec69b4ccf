"""Refuse to run on foreign packages: `agents`, `tables`, `models` and `schemas` are common names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

OURS = ("schemas", "models", "tables", "agents")


def check() -> None:
    """Exit with both paths where one of our packages is not beside `app`."""
    home = Path(__file__).resolve().parent.parent
    for name in OURS:
        module = importlib.import_module(name)
        found = Path(module.__file__ or "").resolve().parent
        if found.parent != home:
            print(f"deskrisk: package {name!r} comes from {found}, expected {home / name}.\n"
                  "Another distribution of that name is installed in this environment; give deskrisk one of its own.",
                  file=sys.stderr)
            raise SystemExit(78)  # ExitCode.FOREIGN_PACKAGE: `tables` may be the foreign one

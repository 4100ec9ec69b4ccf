"""`deskrisk calc`: every number of the system reproduced from a line of JSON, with the kernels of production."""

from __future__ import annotations

import inspect
from typing import Any

import app.calc.foreign_exchange
import app.calc.options
import app.calc.positions
import app.calc.rates
import app.calc.risk
import app.calc.statistics  # noqa: F401
from app.calc.answers import calculate, run_lines
from app.calc.line import CALCULATORS

__all__ = ["calculate", "describe", "run_lines"]


def describe() -> list[tuple[str, list[str], str]]:
    """Return (name, synonyms, what it does) of every calculator."""
    names: dict[Any, list[str]] = {}
    for name, function in CALCULATORS.items():
        names.setdefault(function, []).append(name)
    return [(n[0], n[1:], inspect.getdoc(f) or "") for f, n in names.items()]

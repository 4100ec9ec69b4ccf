"""One line of input of a calculator: every field read is checked and remembered, what was not read is reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np


class FieldError(ValueError):
    """A field is missing or not what was expected."""

    def __init__(self, field: str, value: Any, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}, was {value!r}")
        self.field, self.value, self.expected = field, value, expected


class Line:
    """Fields of one JSON object. A field has one name and, where the trade uses a symbol, aliases (spot, S)."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.read: set[str] = set()
        #: every convention and default that the result rests on
        self.conventions: dict[str, Any] = {}

    def has(self, *names: str) -> bool:
        """Whether one of these fields is given and not null."""
        return any(self.fields.get(n) is not None for n in names)

    def get(self, *names: str, default: Any = ...) -> Any:
        """Return the first of these fields that is given; without a default it must be."""
        for name in names:
            if self.fields.get(name) is not None:
                self.read.add(name)
                return self.fields[name]
        if default is ...:
            raise FieldError(names[0], None, "a value" + (f" (also {', '.join(names[1:])})" if names[1:] else ""))
        return default

    def number(self, *names: str, default: Any = ..., low: float | None = None, above: float | None = None,
               high: float | None = None) -> float:
        """Return a finite number within bounds."""
        value = self.get(*names, default=default)
        if value is None:
            return math.nan
        bounds = " ".join(s for s in ("a finite number", f"of at least {low}" if low is not None else "",
                                      f"above {above}" if above is not None else "",
                                      f"at most {high}" if high is not None else "") if s)
        try:
            if isinstance(value, bool):
                raise ValueError
            out = float(value)
        except (TypeError, ValueError):
            raise FieldError(names[0], value, bounds) from None
        if (not math.isfinite(out) or (low is not None and out < low) or (above is not None and out <= above)
                or (high is not None and out > high)):
            raise FieldError(names[0], value, bounds)
        return out

    def whole(self, *names: str, default: Any = ..., low: int = 0) -> int:
        """Return a whole number."""
        out = self.number(*names, default=default, low=low)
        if out != int(out):
            raise FieldError(names[0], out, "a whole number")
        return int(out)

    def choice(self, *names: str, among: tuple[str, ...], default: Any = ...) -> str:
        """Return one of several words, and remember it as a convention."""
        value = self.get(*names, default=default)
        if value not in among:
            raise FieldError(names[0], value, "one of " + ", ".join(among))
        self.conventions[names[0]] = value
        return str(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.get(*names, default=default)
        if not isinstance(value, bool):
            raise FieldError(names[0], value, "true or false")
        return value

    def day(self, *names: str, default: Any = ...) -> date:
        """Return a date (YYYY-MM-DD)."""
        value = self.get(*names, default=default)
        if value is None:
            raise FieldError(names[0], value, "a date, YYYY-MM-DD")
        try:
            return date.fromisoformat(str(value)[:10])
        except ValueError:
            raise FieldError(names[0], value, "a date, YYYY-MM-DD") from None

    def series(self, *names: str, minimum: int = 1, keep_missing: bool = False) -> np.ndarray:
        """Return a series of numbers; null is missing and skipped unless it is to be kept (as NaN)."""
        value = self.get(*names)
        if not isinstance(value, list):
            raise FieldError(names[0], value, "an array of numbers")
        try:
            out = np.array([math.nan if x is None else float(x) for x in value], np.float64)
        except (TypeError, ValueError):
            raise FieldError(names[0], "...", "an array of numbers") from None
        if not keep_missing:
            skipped = int(np.isnan(out).sum())
            if skipped:
                self.conventions["missing_skipped"] = skipped
            out = out[~np.isnan(out)]
        if len(out) < minimum:
            raise FieldError(names[0], len(out), f"at least {minimum} numbers")
        if np.isinf(out).any():
            raise FieldError(names[0], "inf", "finite numbers")
        return out

    def matrix(self, *names: str, square: int | None = None) -> np.ndarray:
        """Return a matrix of finite numbers."""
        value = self.get(*names)
        try:
            out = np.array(value, np.float64)
        except (TypeError, ValueError):
            raise FieldError(names[0], "...", "an array of arrays of numbers") from None
        if out.ndim != 2 or not np.isfinite(out).all() or (square is not None and out.shape != (square, square)):
            raise FieldError(names[0], list(out.shape), "finite numbers" + (f", {square} x {square}" if square else ""))
        return out

    def unread(self) -> list[str]:
        """Return the fields that no calculation used."""
        return sorted(set(self.fields) - self.read)


Calculator = Callable[[Line], dict[str, Any]]
CALCULATORS: dict[str, Calculator] = {}


def calculator(*names: str) -> Callable[[Calculator], Calculator]:
    """Register a calculator under its name and its synonyms."""

    def register(function: Calculator) -> Calculator:
        for name in names:
            CALCULATORS[name] = function
        return function

    return register


def plain(value: Any) -> Any:
    """Return a result as JSON can carry it: arrays as lists, what is not a number as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.floating | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, date):
        return value.isoformat()
    return value

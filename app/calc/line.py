"""One line of input of a calculator: typed readers that remember what they read; what is left is refused.

A field is reached through a reader alone, so none can be taken without its type and bounds, and none can be left out
without a word: nested objects are lines of their own, and the runner asks the outermost one what nobody read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")
#: two ways to say one number agree where they differ by rounding alone
SAME = 1e-9


class FieldError(ValueError):
    """A field is missing, not what was expected, or not read at all."""

    def __init__(self, field: str, value: Any, expected: str, nearest: str | None = None) -> None:
        super().__init__(f"{field}: expected {expected}, was {value!r}")
        self.field, self.value, self.expected, self.nearest = field, value, expected, nearest


class Exact(float):
    """A number of a line that remembers how it was written: a quantity of many digits stays exact as a decimal."""

    def __new__(cls, text: str) -> Exact:
        """Read the text of a number."""
        out = super().__new__(cls, text)
        out.text = text
        return out

    text: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _builtins(value: Any) -> Any:
    """Return a value whose numbers are plain ones."""
    if isinstance(value, dict):
        return {k: _builtins(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_builtins(v) for v in value]
    return float(value) if isinstance(value, Exact) else value


def _finite(field: str, value: Any) -> None:
    """Refuse what is empty, or no number of this world, anywhere in a value."""
    if isinstance(value, list | dict):
        if not value:
            raise FieldError(field, value, "at least one entry, or no such field")
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            _finite(f"{field}.{k}" if isinstance(value, dict) else f"{field}[{k}]", v)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FieldError(field, value, "a finite number")


def _show(value: Any) -> Any:
    """Return a value as an error carries it: long ones are cut."""
    text = repr(value)
    return value if len(text) <= 200 else text[:200] + " ..."


class Line:
    """Fields of one JSON object. A field has one name and, where the trade uses a symbol, aliases (spot, S).

    Parameters
    ----------
    path : where the object lies in its line, as ``fills[0]``; empty for the line itself
    above : the line in which it lies; conventions and reasons are kept there
    called : the name under which the calculator was called: some synonyms say a model or a style
    """

    def __init__(self, fields: dict[str, Any], path: str = "", above: Line | None = None, called: str = "") -> None:
        self.fields, self.path, self.called = fields, path, called
        self.read: set[str] = set()
        self._asked: list[tuple[str, ...]] = []
        self._parts: list[Line] = []
        #: every convention and default that the result rests on
        self.conventions: dict[str, Any] = {} if above is None else above.conventions
        #: why a figure of the answer is null, by its name
        self.reasons: dict[str, str] = {} if above is None else above.reasons

    # what is asked for, and what was not

    def has(self, *names: str) -> bool:
        """Whether one of these fields is given."""
        self._asked.append(names)
        return any(n in self.fields for n in names)

    def name_of(self, *names: str) -> str:
        """Return the path of a field under the name that the line gives it."""
        name = next((n for n in self.fields if n in names), names[0])
        return f"{self.path}.{name}" if self.path else name

    def _value(self, names: tuple[str, ...], default: Any) -> Any:
        self._asked.append(names)
        given = [n for n in self.fields if n in names]
        if not given:
            if default is ...:
                raise self._missing(names)
            if default is not None:
                where = re.sub(r"\[\d+\]", "[]", self.path)
                self.conventions.setdefault(f"{where}.{names[0]}" if where else names[0], default)
            return default
        first = self.fields[given[0]]
        for name in given:
            self.read.add(name)
            value = self.fields[name]
            if value is None:
                raise FieldError(self.name_of(name), None, "a value, or no such field: null has no meaning here")
            if value is not first and (value != first or isinstance(value, bool) != isinstance(first, bool)):
                raise FieldError(self.name_of(name), _show(value), f"what {given[0]} says ({_show(first)!r}), "
                                                                   "or only one of the two")
        return first

    def _missing(self, names: tuple[str, ...]) -> FieldError:
        """Return the refusal of a line without a field; one that is nearly called so is named."""
        also = f" (also {', '.join(names[1:])})" if names[1:] else ""
        for other in self.fields:
            if other not in self.read and get_close_matches(other.lower(), [n.lower() for n in names], 1, 0.7):
                return FieldError(self.name_of(other), _show(self.fields[other]),
                                  f"no such field; nearest known name: {names[0]}{also}, which is missing", names[0])
        return FieldError(self.name_of(*names), None, f"a value{also}")

    def leftover(self) -> list[FieldError]:
        """Return a refusal for every field that nobody read, nested ones too, with the nearest known name."""
        out = []
        known = {n.lower(): n for names in self._asked for n in names}
        for name, value in self.fields.items():
            if name in self.read:
                continue
            if name.lower() in known and known[name.lower()] == name:
                used = [n for n in known.values() if n in self.read]
                out.append(FieldError(self.name_of(name), _show(value), "no such field beside "
                                      + (", ".join(used) or "the others") + ": it would not be used", name))
                continue
            near = get_close_matches(name.lower(), list(known), 1, 0.6)
            nearest = known[near[0]] if near else None
            hint = f"nearest known name: {nearest}" if near else "known here: " + ", ".join(known.values())
            out.append(FieldError(self.name_of(name), _show(value), f"no such field; {hint}", nearest))
        return out + [e for part in self._parts for e in part.leftover()]

    def undefined(self, name: str, reason: str) -> None:
        """Say why a figure of the answer is null."""
        self.reasons[name] = reason

    def ways(self, *given: tuple[tuple[str, ...], Callable[[], float]], default: Any = ...) -> float:
        """Return a number that can be said in several ways: those given are all read and must agree.

        Parameters
        ----------
        given : the names of a field (with its aliases) and what reads it, for every way
        default : what holds where none is given; without one the first way has to be
        """
        found = [(names, read()) for names, read in given if self.has(*names)]
        if not found:
            if default is ...:
                raise self._missing(tuple(n for names, _ in given for n in names))
            self.conventions.setdefault(given[0][0][0], default)
            return float(default)
        (first, value), *rest = found
        for names, other in rest:
            if abs(other - value) > SAME * max(abs(value), abs(other), 1e-6):
                raise FieldError(self.name_of(*names), self.fields[self.name_of(*names).rpartition(".")[2]],
                                 f"the same as {self.name_of(*first)}, or only one of the two")
        return value

    # readers

    def number(self, *names: str, default: Any = ..., low: float | None = None, above: float | None = None,
               high: float | None = None, below: float | None = None) -> float:
        """Return a finite number within bounds; one that is not given and has the default None is NaN."""
        value = self._value(names, default)
        return math.nan if value is None else self._number(self.name_of(*names), value, low, above, high, below)

    @staticmethod
    def _number(field: str, value: Any, low: float | None = None, above: float | None = None,
                high: float | None = None, below: float | None = None) -> float:
        limits = [f"{word} {bound:g}" for word, bound in (("of at least", low), ("above", above), ("at most", high),
                                                          ("below", below)) if bound is not None]
        bounds = " ".join(["a finite number", " and ".join(limits)]).rstrip()
        try:
            out = float(value) if _is_number(value) else math.nan
        except OverflowError:
            out = math.inf
        if not (math.isfinite(out) and (low is None or out >= low) and (above is None or out > above)
                and (high is None or out <= high) and (below is None or out < below)):
            raise FieldError(field, _show(value), bounds)
        return out

    def decimal(self, *names: str, default: Any = ..., above: float | None = None) -> Decimal:
        """Return an exact decimal, of a number as it was written or of a text that is one."""
        value = self._value(names, default)
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise InvalidOperation
            out = Decimal(value.text if isinstance(value, Exact) else value.strip() if isinstance(value, str)
                          else repr(value))
            if not out.is_finite() or (above is not None and out <= above):
                raise InvalidOperation
        except InvalidOperation:
            raise FieldError(self.name_of(*names), _show(value), "a decimal" + (
                f" above {above:g}" if above is not None else "")) from None
        return out

    def whole(self, *names: str, default: Any = ..., low: int = 0, high: int | None = None) -> int:
        """Return a whole number."""
        out = self.number(*names, default=default, low=low, high=high)
        if out != int(out):
            raise FieldError(self.name_of(*names), out, "a whole number")
        return int(out)

    def choice(self, *names: str, among: tuple[str, ...], default: Any = ...) -> str:
        """Return one of several words, and remember it as a convention."""
        value = self._value(names, default)
        if not isinstance(value, str) or value not in among:
            near = get_close_matches(value.lower(), among, 1, 0.6) if isinstance(value, str) else []
            raise FieldError(self.name_of(*names), _show(value), "one of " + ", ".join(among),
                             near[0] if near else None)
        if not self.path:
            self.conventions[names[0]] = value
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._value(names, default)
        if not isinstance(value, bool):
            raise FieldError(self.name_of(*names), _show(value), "true or false")
        return value

    def text(self, *names: str, default: Any = ...) -> str:
        """Return a text that is not empty."""
        value = self._value(names, default)
        if not isinstance(value, str) or not value.strip():
            raise FieldError(self.name_of(*names), _show(value), "a text")
        return value

    def day(self, *names: str, default: Any = ...) -> date:
        """Return a date (YYYY-MM-DD)."""
        value = self._value(names, default)
        try:
            if not isinstance(value, str) or len(value) != 10:
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            raise FieldError(self.name_of(*names), _show(value), "a date, YYYY-MM-DD") from None

    def confidences(self, *names: str, default: Any = ...) -> list[float]:
        """Return one or several confidence levels; a tail probability (below 0.5) is refused."""
        value = self._value(names, default)
        given = value if isinstance(value, list) else [value]
        for level in given:
            if not _is_number(level) or not 0.5 <= level < 1.0:
                raise FieldError(self.name_of(*names), _show(level), "a confidence of at least 0.5 and below 1, as "
                                                                     "0.99; not the probability of the tail")
        if not given:
            raise FieldError(self.name_of(*names), [], "at least one confidence level")
        return [float(v) for v in given]

    def series(self, *names: str, minimum: int = 1, keep_missing: bool = False, low: float | None = None,
               above: float | None = None) -> np.ndarray:
        """Return a series of numbers; null is missing and skipped unless it is to be kept (as NaN)."""
        value, field = self._value(names, ...), self.name_of(*names)
        out = self._numbers(field, value, low, above, missing=True)
        if not keep_missing:
            skipped = int(np.isnan(out).sum())
            if skipped:
                self.conventions["missing_skipped"] = self.conventions.get("missing_skipped", 0) + skipped
            out = out[~np.isnan(out)]
        if len(out) < minimum:
            raise FieldError(field, _show(value), f"at least {minimum} numbers, there are {len(out)}")
        return out

    def _numbers(self, field: str, value: Any, low: float | None = None, above: float | None = None,
                 missing: bool = False) -> np.ndarray:
        if not isinstance(value, list):
            raise FieldError(field, _show(value), "an array of numbers")
        if set(map(type, value)) <= {float, Exact, int} and low is None and above is None:
            out = np.array(value, np.float64) if len(value) else np.empty(0)
            if np.isfinite(out).all():
                return out
        return np.array([math.nan if v is None and missing else self._number(f"{field}[{i}]", v, low, above)
                         for i, v in enumerate(value)], np.float64)

    def texts(self, *names: str, count: int | None = None) -> list[str]:
        """Return a list of texts."""
        value, field = self._value(names, ...), self.name_of(*names)
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise FieldError(field, _show(value), "an array of texts" + (f", {count} of them" if count else ""))
        for i, v in enumerate(value):
            if not isinstance(v, str) or not v:
                raise FieldError(f"{field}[{i}]", _show(v), "a text")
        return value

    def table(self, *names: str, columns: Sequence[int], minimum: int = 1, open_end: bool = False) -> list[list[float]]:
        """Return rows of numbers, each with one of several numbers of columns.

        Parameters
        ----------
        open_end : null in the first column means no end (infinity)
        """
        value, field = self._value(names, ...), self.name_of(*names)
        shape = "rows of " + " or ".join(map(str, columns)) + " numbers"
        if not isinstance(value, list) or len(value) < minimum:
            raise FieldError(field, _show(value), f"{shape}, at least {minimum}")
        out = []
        for i, row in enumerate(value):
            if not isinstance(row, list) or len(row) not in columns:
                raise FieldError(f"{field}[{i}]", _show(row), shape)
            out.append([math.inf if open_end and j == 0 and v is None else self._number(f"{field}[{i}][{j}]", v)
                        for j, v in enumerate(row)])
        return out

    def matrix(self, *names: str, square: int | None = None) -> np.ndarray:
        """Return a matrix of finite numbers."""
        value, field = self._value(names, ...), self.name_of(*names)
        if not isinstance(value, list) or not value:
            raise FieldError(field, _show(value), "an array of arrays of numbers")
        rows = [self._numbers(f"{field}[{i}]", row) for i, row in enumerate(value)]
        shape = (len(rows), len(rows[0]))
        if len({len(r) for r in rows}) > 1 or not shape[1] or (square is not None and shape != (square, square)):
            raise FieldError(field, [len(r) for r in rows], "rows of one length" + (
                f", {square} x {square}" if square else ""))
        return np.array(rows)

    def covariance(self, *names: str, square: int | None = None, unit_diagonal: bool = False) -> np.ndarray:
        """Return a covariance (or with ``unit_diagonal`` correlation) matrix: symmetric, no eigenvalue below zero."""
        out, field = self.matrix(*names, square=square), self.name_of(*names)
        if out.shape[0] != out.shape[1]:
            raise FieldError(field, list(out.shape), "a square matrix")
        variance = np.diag(out)
        if (variance < 0.0).any() or (out[variance == 0.0] != 0.0).any():
            raise FieldError(field, variance.tolist(), "variances of at least 0 on the diagonal, nothing beside a 0")
        sd = np.sqrt(np.where(variance > 0.0, variance, 1.0))
        scaled = out / np.outer(sd, sd)  # small variances are looked at as closely as large ones
        if not (np.abs(scaled - scaled.T) <= 1e-9).all():
            i, j = (int(v) for v in np.unravel_index(int(np.abs(scaled - scaled.T).argmax()), out.shape))
            raise FieldError(field, [float(out[i, j]), float(out[j, i])], f"a symmetric matrix (row {i + 1}, "
                                                                          f"column {j + 1} and its mirror)")
        if unit_diagonal and not (np.abs(variance - 1.0) <= 1e-9).all():
            raise FieldError(field, variance.tolist(), "ones on the diagonal")
        least = float(np.linalg.eigvalsh(0.5 * (scaled + scaled.T)).min())
        if least < -1e-9 * len(out):
            raise FieldError(field, least, "a matrix without an eigenvalue below zero (the least one is shown, of the "
                                           "correlations)")
        return np.array(0.5 * (out + out.T))

    def mapping(self, *names: str, minimum: int = 1) -> dict[str, float]:
        """Return an object of numbers by name."""
        value, field = self._value(names, ...), self.name_of(*names)
        if not isinstance(value, dict) or len(value) < minimum:
            raise FieldError(field, _show(value), "an object {name: number}")
        return {str(k): self._number(f"{field}.{k}", v) for k, v in value.items()}

    def arrays(self, *names: str, count: int | None = None) -> dict[str, np.ndarray]:
        """Return an object of arrays of numbers by name; one number is an array of one."""
        value, field = self._value(names, ...), self.name_of(*names)
        if not isinstance(value, dict) or not value:
            raise FieldError(field, _show(value), "an object {name: array of numbers}")
        out = {str(k): self._numbers(f"{field}.{k}", [v] if _is_number(v) else v) for k, v in value.items()}
        for k, v in out.items():
            if not len(v) or (count is not None and len(v) != count):
                raise FieldError(f"{field}.{k}", _show(value[k]), f"{count or 'at least one'} numbers")
        return out

    def object(self, *names: str) -> Line:
        """Return a nested object as a line of its own."""
        return self._part(self.name_of(*names), self._value(names, ...))

    def rows(self, *names: str, minimum: int = 1, bare: str | None = None) -> list[Line]:
        """Return an array of objects, each as a line of its own; with ``bare`` a number alone is that field of one."""
        value, field = self._value(names, ...), self.name_of(*names)
        if not isinstance(value, list) or len(value) < minimum:
            raise FieldError(field, _show(value), f"an array of objects, at least {minimum}")
        return [self._part(f"{field}[{i}]", {bare: v} if bare and _is_number(v) else v) for i, v in enumerate(value)]

    def _part(self, path: str, value: Any) -> Line:
        if not isinstance(value, dict):
            raise FieldError(path, _show(value), "an object")
        self._parts.append(Line(value, path, self))
        return self._parts[-1]

    def is_list(self, *names: str) -> bool:
        """Whether a field is given as an array."""
        self._asked.append(names)
        return any(isinstance(self.fields.get(n), list) for n in names)

    def struct(self, kind: type[T], names: Sequence[str]) -> T:
        """Return the fields of these names as a record, checked by the types of the record."""
        given = {n: self._value((n,), ...) for n in names if self.has(n)}
        for n, value in given.items():
            _finite(self.name_of(n), value)
        try:
            return msgspec.convert(_builtins(given), kind)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$.")
            raise FieldError(where.rstrip("`") or names[0], _show(given.get(re.split(r"[.\[]", where.rstrip("`"))[0])),
                             what) from error


Calculator = Callable[[Line], dict[str, Any]]
CALCULATORS: dict[str, Calculator] = {}


def calculator(*names: str) -> Callable[[Calculator], Calculator]:
    """Register a calculator under its name and its synonyms."""

    def register(function: Calculator) -> Calculator:
        for name in names:
            CALCULATORS[name] = function
        return function

    return register

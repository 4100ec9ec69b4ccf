"""Scenarios as they are written: what a step may say is checked before anything runs, each problem with its line."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from app.rehearse.reading import Mapping, ScenarioError, documents, parse
from app.settings import Settings
from schemas.market import Surface
from schemas.records import Account, Control, Counterparty, External, Instrument, Limit, Order, Tick, Trade

__all__ = ["RECORD_STEPS", "Scenario", "ScenarioError", "Step", "read_path", "read_text", "scenario_of"]

#: steps that send a record: its kind, its topic, the field that is its key
RECORD_STEPS: dict[str, tuple[type[msgspec.Struct], str, str]] = {
    "trade": (Trade, "trades", "account"), "tick": (Tick, "ticks", "instrument"), "order": (Order, "orders", "account"),
    "external": (External, "positions.external", "account"),
    "instrument": (Instrument, "reference.instruments", "instrument"),
    "account": (Account, "reference.accounts", "account"),
    "counterparty": (Counterparty, "reference.counterparties", "counterparty"),
    "limit": (Limit, "limits", "limit_id"), "control": (Control, "controls", "scope"),
    "surface": (Surface, "market.surfaces", "underlying")}
REFERENCE = {"instruments": Instrument, "accounts": Account, "counterparties": Counterparty}
ROLES = ("positions", "marks", "risk", "gate", "gateway", "sink")
DOORS = ("topic", "socket", "http")
PEOPLE = ("viewer", "dealer", "risk", "risk2", "admin", "nobody")
FILE_KINDS = ("reference", "history", "limits", "replay")
SLEEP_MAX_S = 5.0
_TOP = ("name", "why", "alone", "settings", "reference", "history", "steps")
#: what stands beside the word of a step
_BESIDE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(RECORD_STEPS, ("as_array", "partition")), "order": ("via", "expect", "as_array", "partition"),
    "record": ("partition",), "raw": ("partition",), "file": ("expect",), "calc": ("expect",),
    "http": ("expect", "save"), "command": ("expect", "save"), "compact": (), "kill": (), "stop": (), "start": (),
    "sleep_s": (), "expect": ()}
_WITHIN: dict[str, tuple[str, ...]] = {
    "record": ("topic", "key", "value", "partition"), "raw": ("topic", "key", "text", "base64", "partition"),
    "file": ("as", "name", "text", "base64"), "calc": ("name", "line"), "http": ("method", "path", "as", "json"),
    "command": ("run",)}
_NEEDED = {"record": ("topic", "value"), "raw": ("topic",), "file": ("as", "name"), "calc": ("name", "line"),
           "http": ("method", "path"), "command": ("run",)}
_EXPECTED: dict[str, tuple[str, ...]] = {
    "order": ("outcome", "codes", "warnings", "refused", "is", "within"), "file": ("loads", "refused"),
    "calc": ("is", "within", "refused"), "http": ("status", "is", "within"),
    "command": ("exit", "output", "is", "within")}
#: what an `expect` may look at, and the fields by which it finds it (none: one word)
SELECTORS: dict[str, tuple[str, ...]] = {
    "position": ("account", "instrument"), "node": (), "risk": (), "mark": (), "decision": (),
    "alert": ("kind", "node", "metric", "limit_id", "alert_id", "ack_by", "escalated"),
    "quarantine": ("topic", "reason", "detail", "partition", "offset", "index"), "cancel": (),
    "limit_usage": ("node", "metric", "limit_id", "instrument"), "sql": (), "page": ("scope", "table"),
    "http": ("method", "path", "as", "json")}


@dataclass(frozen=True)
class Step:
    """One step: its word, what follows it, what stands beside it, its line."""

    kind: str
    body: Any
    beside: Mapping
    line: int

    @property
    def expect(self) -> Mapping | None:
        """What is expected beside the step."""
        return self.beside.get("expect")

    def said(self) -> str:
        """Return the step in short, for a report."""
        if isinstance(self.body, dict):
            shown = {k: v for k, v in self.body.items() if k not in ("is", "within", "json", "text")}
            word = " ".join(f"{k} {_short(v)}" for k, v in shown.items())
        else:
            word = f"{len(self.body)} records" if isinstance(self.body, list) else str(self.body)
        return f"{self.kind} {word}"[:200]


@dataclass
class Scenario:
    """One document of a file."""

    name: str
    file: str
    line: int
    why: str = ""
    alone: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, list[Any]] = field(default_factory=dict)
    history: str | None = None
    steps: list[Step] = field(default_factory=list)

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels of the hierarchy, where the scenario sets its own."""
        return tuple(self.settings.get("levels") or ())

    @property
    def is_offline(self) -> bool:
        """Whether it needs no installation: calculators and files of prices alone."""
        return not any(self.reference.values()) and all(
            s.kind == "calc" or (s.kind == "file" and s.body["as"] == "history") for s in self.steps)

    @property
    def needs_store(self) -> bool:
        """Whether it asks the store, or has the sink stopped."""
        return self.uses("sql") or any(s.kind in ("kill", "stop", "start") and s.body == "sink" for s in self.steps)

    def uses(self, *words: str) -> bool:
        """Return whether a step, or what an `expect` looks at, is one of some words."""
        return any(s.kind in words or (s.kind == "expect" and s.body.keys() & set(words)) for s in self.steps)


def read_path(path: Path) -> list[Scenario]:
    """Return the scenarios of a file, or of all files under a folder.

    Raises
    ------
    ScenarioError
        The first problem of the first file that has one.
    """
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in (".yaml", ".yml"))
        return [scenario for file in files for scenario in read_path(file)]
    return [scenario_of(document, str(path)) for document in documents(path)]


def read_text(text: str, file: str = "scenario.yaml") -> list[Scenario]:
    """Return the scenarios of a text; see `read_path`."""
    return [scenario_of(document, file) for document in parse(text, file)]


def scenario_of(document: Mapping, file: str) -> Scenario:
    """Return a document as a scenario, checked."""
    check = _Check(file)
    check.keys(document, _TOP, "scenario")
    if not isinstance(document.get("name"), str) or not document["name"]:
        raise ScenarioError(file, document.line, "name: expected a text")
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise ScenarioError(file, document.line_of("steps"), "steps: expected a list of steps")
    settings = document.get("settings") or Mapping()
    check.settings(settings, document.line_of("settings"))
    levels = settings.get("levels") or ()
    reference = document.get("reference") or Mapping()
    check.keys(check.mapping(reference, document.line_of("reference"), "reference"), tuple(REFERENCE), "reference")
    for word, kind in REFERENCE.items():
        rows = reference.get(word) or []
        if not isinstance(rows, list):
            raise ScenarioError(file, reference.line_of(word), f"{word}: expected a list")
        for row in rows:
            check.record(row, kind, reference.line_of(word), levels)
    alone = document.get("alone", False)
    if not isinstance(alone, bool):
        raise ScenarioError(file, document.line_of("alone"), f"alone: expected true or false, was {alone!r}")
    made = Scenario(document["name"], file, document.line, str(document.get("why") or ""), alone, dict(settings),
                    dict(reference), document.get("history"))
    if made.history is not None and not alone:
        raise ScenarioError(file, document.line_of("history"), "history: belongs to a scenario with alone: true")
    made.steps = [check.step(step, document.line_of("steps"), levels) for step in steps]
    if not alone and made.uses("kill", "stop", "start"):
        at = next(s.line for s in made.steps if s.kind in ("kill", "stop", "start"))
        raise ScenarioError(file, at, "kill, stop and start belong to a scenario with alone: true")
    return made


class _Check:
    def __init__(self, file: str) -> None:
        self._file = file

    def fail(self, line: int, why: str) -> ScenarioError:
        return ScenarioError(self._file, line, why)

    def mapping(self, value: Any, line: int, what: str) -> Mapping:
        if not isinstance(value, Mapping):
            raise self.fail(line, f"{what}: expected a mapping, was {value!r}")
        return value

    def keys(self, found: Mapping, known: tuple[str, ...], what: str) -> None:
        for key in found:
            if key not in known:
                near = get_close_matches(key, known, 1)
                raise self.fail(found.line_of(key), f"{what}: {key!r} is not known" + (
                    f"; {near[0]!r} is" if near else f"; expected some of {', '.join(known)}"))

    def settings(self, settings: Any, line: int) -> None:
        found = self.mapping(settings, line, "settings")
        self.keys(found, tuple(Settings.model_fields), "settings")

    def record(self, row: Any, kind: Any, line: int, levels: Any = ()) -> None:
        """Check that a record has fields of its kind only; what they hold is for the stages to judge."""
        found = self.mapping(row, line, kind.__name__)
        more = tuple(levels) if kind is Account else ()
        self.keys(found, (*kind.__struct_fields__, *more), kind.__name__)
        hints = typing.get_type_hints(kind)
        for key, value in found.items():
            inner = next((t for t in _parts(hints.get(key)) if isinstance(t, type) and issubclass(t, msgspec.Struct)),
                         None)
            for part in (value if isinstance(value, list) else [value]) if inner else ():
                if isinstance(part, Mapping):
                    self.record(part, inner, found.line_of(key))

    def step(self, raw: Any, line: int, levels: Any) -> Step:
        found = self.mapping(raw, line, "step")
        words = [k for k in found if k in _BESIDE]
        kinds = [k for k in words if k != "expect"] or words
        if len(kinds) != 1:
            unknown = [k for k in found if k not in _BESIDE]
            near = get_close_matches(unknown[0], list(_BESIDE), 1) if unknown else []
            raise self.fail(found.line_of(unknown[0]) if unknown else found.line, (
                f"step: {unknown[0]!r} is not known" + (f"; {near[0]!r} is" if near else "")) if unknown and not kinds
                else f"step: expected one of {', '.join(_BESIDE)}, was {', '.join(found)}")
        (kind,) = kinds
        self.keys(found, (kind, *_BESIDE[kind]), kind)
        body, at = found[kind], found.line_of(kind)
        if kind in RECORD_STEPS:
            rows = body if isinstance(body, list) else [body]
            for row in rows:
                self.record(row, RECORD_STEPS[kind][0], at, levels)
            if found.get("via", "topic") not in DOORS:
                raise self.fail(found.line_of("via"), f"via: expected one of {', '.join(DOORS)}, was {found['via']!r}")
        elif kind == "expect":
            self.expectation(body, at)
        else:
            self.other(kind, body, at)
        if "expect" in found and kind != "expect":
            beside = self.mapping(found["expect"], found.line_of("expect"), "expect")
            self.keys(beside, _EXPECTED[kind], f"expect beside {kind}")
            self.values(beside)
        return Step(kind, body, found, at)

    def other(self, kind: str, body: Any, at: int) -> None:
        if kind in _WITHIN:
            inner = self.mapping(body, at, kind)
            self.keys(inner, _WITHIN[kind], kind)
            for key in _NEEDED[kind]:
                if key not in inner:
                    raise self.fail(at, f"{kind}: without {key}")
            if kind in ("raw", "file") and ("text" in inner) == ("base64" in inner):
                raise self.fail(at, f"{kind}: expected text or base64")
            if kind == "file" and inner["as"] not in FILE_KINDS:
                raise self.fail(inner.line_of("as"), f"as: expected one of {', '.join(FILE_KINDS)}")
            if kind == "http" and inner.get("as", "viewer") not in PEOPLE:
                raise self.fail(inner.line_of("as"), f"as: expected one of {', '.join(PEOPLE)}")
        elif kind in ("kill", "stop", "start"):
            if body not in ROLES:
                raise self.fail(at, f"{kind}: expected one of {', '.join(ROLES)}, was {body!r}")
        elif kind == "sleep_s" and (isinstance(body, bool) or not isinstance(body, int | float)
                                    or not 0 <= body <= SLEEP_MAX_S):
            raise self.fail(at, f"sleep_s: expected 0 to {SLEEP_MAX_S:g}, was {body!r}")

    def expectation(self, body: Any, at: int) -> None:
        found = self.mapping(body, at, "expect")
        chosen = [k for k in found if k in SELECTORS]
        if len(chosen) != 1:
            raise self.fail(at, f"expect: expected one of {', '.join(SELECTORS)}, was {', '.join(found)}")
        (what,) = chosen
        more = ("status",) if what == "http" else ()
        self.keys(found, (what, "is", "within", "never", *more), "expect")
        if SELECTORS[what]:
            self.keys(self.mapping(found[what], found.line_of(what), what), SELECTORS[what], what)
        elif not isinstance(found[what], str):
            raise self.fail(found.line_of(what), f"{what}: expected a text, was {found[what]!r}")
        self.values(found)

    def values(self, found: Mapping) -> None:
        """Check what values are held against: by path, with a distance that is a number."""
        if "is" in found:
            self.mapping(found["is"], found.line_of("is"), "is")
        within = found.get("within", 0.0)
        if isinstance(within, bool) or not isinstance(within, int | float) or within < 0:
            raise self.fail(found.line_of("within"), f"within: expected a number from 0, was {within!r}")


def _short(value: Any) -> str:
    return ",".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _parts(hint: Any) -> list[Any]:
    """Return the types that a type is made of."""
    inner = typing.get_args(hint)
    return [hint] if not inner else [t for part in inner for t in _parts(part)]

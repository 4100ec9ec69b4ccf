"""Reference records, rules and marks with every field bent: what is none is refused, and nothing else happens."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

import schemas
from models.gate.book import GateBook
from models.reference import Reference
from schemas.codec import decoder_of
from schemas.market import Surface, Touch
from schemas.records import Account, Control, Counterparty, Instrument, Limit

T0 = 1_795_000_000_000_000_000
BENT = ["NaN", "sNaN", "Infinity", "-Infinity", "-1", "0", "1e400", "1e-400", "1e999999999", "1e-999999999", "", "x", -1, 0, 1e308, 2**63, -(2**63), [], {}, True, None,
        "9999-99-99", "2026-13-45", "\u0000", "é" * 300]
GOOD: dict[type[msgspec.Struct], dict[str, Any]] = {
    Instrument: {"instrument": "X", "asset_class": "future", "currency": "USD"}, Account: {"account": "A", "book": "B", "desk": "D", "strategy": "S", "fund": "F"},
    Limit: {"limit_id": "L", "node": "firm", "metric": "gross", "limit": "1", "version": 1, "by": "r", "reason": "test of records"},
    Counterparty: {"counterparty": "C", "rating": 1}, Control: {"scope": "all", "state": "halted", "reason": "test of records", "by": "x", "ts": T0, "rev": 1},
    Surface: {"underlying": "X", "ts_event": T0}, Touch: {"instrument": "X", "touched": True, "ts_event": T0, "by": "x", "reason": "test of records"}}


def takers(gate: GateBook, record: Any) -> Iterator[Callable[[], Any]]:
    """Yield what takes a record in."""
    known = Reference(lambda _: 0)
    if isinstance(record, Instrument):
        yield lambda: known.add_instrument(record)
        yield lambda: gate.add_instrument(record)
    elif isinstance(record, Account):
        yield lambda: known.add_account(record)
        yield lambda: gate.add_account(record)
    else:
        yield lambda: {Limit: gate.add_limit, Counterparty: gate.add_counterparty, Control: gate.add_control, Surface: gate.book.add_surface,
                       Touch: gate.book.add_touch}[type(record)](record)  # type: ignore[operator]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_a_bent_record_is_refused_or_taken_and_ends_nothing(kind: type[msgspec.Struct]) -> None:
    refused = 0
    for field in kind.__struct_encode_fields__:
        for value in BENT:
            gate = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"), accounts=8, instruments=8, positions=16, nodes=64, rates=8, ring=4)
            try:
                record = decoder_of(kind).decode(msgspec.json.encode(GOOD[kind] | {field: value}))
                for take in takers(gate, record):
                    take()
            except ValueError:  # what readers of these topics take for a refusal: a decoder's error is one
                refused += 1
                continue
            gate.refresh(T0)
    assert refused


@pytest.mark.parametrize(("kind", "field"), [(Instrument, "multiplier"), (Instrument, "quanto_rate"), (Account, "nav")])
@pytest.mark.parametrize("value", ["NaN", "sNaN", "-Infinity", "1e999999999"])
def test_a_number_that_is_none_is_named(kind: type[msgspec.Struct], field: str, value: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"{field}: expected a finite number of at most 30 digits, was"):
        decoder_of(kind).decode(msgspec.json.encode(GOOD[kind] | {field: value}))


def _without_bounds(found: Any, path: str) -> Iterator[str]:
    """Yield the integers of a type that have no bounds of their own; times are looked at where they are read."""
    if isinstance(found, inspect.IntType) and None in (found.ge, found.le if found.lt is None else found.lt):
        yield path
    for name in ("item_type", "key_type", "value_type"):
        if (part := getattr(found, name, None)) is not None:
            yield from _without_bounds(part, path)
    for part in getattr(found, "types", ()):
        if not {inspect.IntType, inspect.StrType} <= {type(p) for p in found.types}:
            yield from _without_bounds(part, path)


def test_every_integer_of_a_record_is_one_that_is_counted_with() -> None:
    """A version of 2**70 would be written into every decision, and no reader of decisions could read them."""
    records = {x for module in pkgutil.iter_modules(schemas.__path__)
               for x in vars(importlib.import_module(f"schemas.{module.name}")).values()
               if isinstance(x, type) and issubclass(x, msgspec.Struct) and x is not msgspec.Struct}
    assert len(records) > 30
    unbounded = {f"{r.__name__}.{p}" for r in records
                 for f in getattr(inspect.type_info(r), "fields", ()) for p in _without_bounds(f.type, f.name)}
    assert unbounded == {"Kept.source", "Kept.other_source"}  # hashes of 64 bits

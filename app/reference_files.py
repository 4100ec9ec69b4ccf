"""Reference data from a folder of files, checked, and published to the compacted topics."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from app.files.reading import KINDS, Table, kind_of, read_table, stem_of
from app.files.records import fields_of, record_of, text_of_cell, unknown_columns
from app.files.refusals import FileRefused, expected
from models.exotic_terms import exotic_terms
from models.fixed_income import paper_of
from models.reference import FIRM, LEVELS, Reference
from schemas.codec import encode, encode_account
from schemas.instrument_terms import ABOVE_ZERO, INVERSE_CLASSES, OPTION_CLASSES, PAPER_CLASSES, wrong_terms
from schemas.records import ACCOUNT_FIELDS, Account, Counterparty, Instrument
from schemas.units import expiry_ns
from tables.kafka import KafkaClient

#: files of a folder: what they hold, the field that names a record, whether the file has to be there
FILES: dict[str, tuple[type[msgspec.Struct], str, bool]] = {
    "instruments": (Instrument, "instrument", True), "accounts": (Account, "account", True),
    "counterparties": (Counterparty, "counterparty", False)}

#: whose expiry is counted with; of others it may be a month or a code, the venue knows the day
EXPIRING_CLASSES = OPTION_CLASSES | {"fx_forward"}
_DATED = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
#: fields that only some classes have a use for
USED_BY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("right", "strike", "style", "barrier_kind", "barrier", "rebate", "digital_kind", "payout",
                     "premium_in_underlying", "model"), frozenset(OPTION_CLASSES)),
    "inverse": INVERSE_CLASSES,
    **dict.fromkeys(("coupon", "frequency", "day_count", "dated", "maturity", "first_coupon", "ex_dividend_days"),
                    frozenset(PAPER_CLASSES))}
#: what is wrong with these is wrong whatever else the row says
ALONE = (*ABOVE_ZERO, "prior_close_date")
#: what an option is not one without
OPTION_TERMS = ("underlying", "right", "strike", "expiry")
#: what parts names in other people's lists
_OTHER_SEPARATORS = re.compile(r"[,;|/]")
#: what a row that does not state a field leaves it at
_DEFAULTS = {f.name: None if f.required or f.default is msgspec.NODEFAULT else f.default
             for f in msgspec.structs.fields(Instrument)}
_TIER = ("up_to", "initial", "maintenance")


def _lists(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose lists in one cell are lists: spaces part traders and tiers."""
    out = dict(row)
    if isinstance(out.get("traders"), str):
        if _OTHER_SEPARATORS.search(out["traders"]):
            raise ValueError(expected("traders", "names with spaces between them", out["traders"]))
        out["traders"] = out["traders"].split()
    tiers = out.get("margin_tiers")
    if isinstance(tiers, str):  # up_to:initial:maintenance, the last one without an end
        parts = [tier.split(":") for tier in tiers.split()]
        if any(len(part) != len(_TIER) for part in parts):
            raise ValueError(expected("margin_tiers", "up_to:initial:maintenance, a space between tiers", tiers))
        tiers = [{k: v for k, v in zip(_TIER, part, strict=True) if v} for part in parts]
    if isinstance(tiers, list):
        out["margin_tiers"] = [_tier(k, tier) for k, tier in enumerate(tiers)]
    return out


def _tier(number: int, tier: Any) -> dict[str, Any]:
    kind = next(p for part in fields_of(Instrument)["margin_tiers"][1] for p in getattr(part, "__args__", ()))
    if not isinstance(tier, dict):
        raise ValueError(expected(f"margin_tiers[{number}]", "up_to, initial and maintenance", tier))
    found, problems = record_of({k: v for k, v in tier.items() if v is not None}, kind)
    if problems:
        raise ValueError("; ".join(f"margin_tiers[{number}].{p}" for p in problems))
    return found


def _checked(row: dict[str, Any], cls: type[msgspec.Struct]) -> tuple[Any, list[str]]:
    """Return the record of a row, and everything that is wrong with it."""
    try:
        row = _lists(row)
    except ValueError as error:
        known = {k: v for k, v in row.items() if k not in ("margin_tiers", "traders")}
        return None, [str(error), *record_of(known, cls)[1]]
    found, problems = record_of(row, cls)
    wrong = {w.field: expected(*w) for w in wrong_terms(SimpleNamespace(**_DEFAULTS | found))
             } if cls is Instrument else {}
    if problems:
        return None, [*problems, *(wrong[name] for name in ALONE if name in wrong)]
    problems += wrong.values()
    try:  # without what is known to be wrong, so that the rest of the row is looked at, too
        record = msgspec.convert({k: v for k, v in found.items() if k not in wrong}, cls)
        if isinstance(record, Instrument):
            problems += _out_of_place(record, found, wrong)
        if problems:
            return None, problems
        record = msgspec.convert(found, cls)
        if isinstance(record, Instrument):
            Reference(lambda _: 0).add_instrument(record)
            if record.expiry is not None and (record.asset_class in EXPIRING_CLASSES or _DATED.match(record.expiry)):
                expiry_ns(record.expiry)
            if record.asset_class in PAPER_CLASSES:
                paper_of(record)
    except (ValueError, ArithmeticError) as error:
        return None, [*problems, str(error)]
    return record, []


def _out_of_place(record: Instrument, found: dict[str, Any], wrong: Container[str]) -> list[str]:
    """Return fields that an instrument of this class has no use for, and terms that it is nothing without.

    Parameters
    ----------
    wrong : fields that are refused already
    """
    out = [expected(name, f"nothing of class {record.asset_class}", found[name])
           for name, classes in USED_BY.items() if found.get(name) not in (None, False)
           and record.asset_class not in classes and name not in wrong]
    if record.calendar is not None:
        from models.pricing.calendars import calendar_of  # QuantLib: only where one is named

        try:
            calendar_of(record.calendar)
        except ValueError as error:
            out.append(str(error))
    if record.asset_class in OPTION_CLASSES:
        out += [f"{name}: expected a value for class {record.asset_class}, was empty" for name in OPTION_TERMS
                if getattr(record, name) is None and name not in wrong]
        if not out and not wrong and exotic_terms(record) is None:
            named = "barrier_kind" if record.barrier_kind is not None else "digital_kind"
            what = "terms that are whole (barrier, payout), one kind, and no American style"
            out.append(expected(named, what, getattr(record, named)))
    return out


def _records(table: Table, cls: type[msgspec.Struct], key: str, found: dict[str, Any],
             levels: Sequence[str]) -> list[str]:
    """Add the records of a file to those found; return everything that is wrong with them."""
    known = dict.fromkeys(fields_of(cls))
    further = [x for x in levels if x != FIRM and x not in ACCOUNT_FIELDS] if cls is Account else []
    problems = unknown_columns(table, (*known, *further), f"a field of {cls.__name__}") + table.problems
    if not len(table) and not table.problems:
        problems.append(f"{table.name}: expected records, found none")
    for i, row in enumerate(table.rows()):
        record, wrong = _checked({k: v for k, v in row.items() if k in known}, cls)
        try:
            above = {k: text_of_cell(row[k], k) for k in further if row.get(k) is not None}
        except ValueError as error:
            wrong = [*wrong, str(error)]
        else:
            if record is not None and above:
                record = msgspec.structs.replace(record, levels=record.levels | above)
        problems += [f"{table.where(i, text.partition(':')[0])}: {text}" for text in wrong]
        if record is None:
            continue
        name = getattr(record, key)
        if name in found:
            problems.append(f"{table.where(i, key)}: {key}: expected each record once, {name!r} appears twice")
        found[name] = record
    return problems


def _misnamed(folder: Path) -> list[str]:
    """Return files of records whose name is nearly one that is read."""
    out = []
    for path in sorted(folder.iterdir()):
        stem = stem_of(path).lower()
        if path.is_file() and not any(stem_of(path).startswith(s) and kind_of(path) in KINDS for s in FILES):
            near = get_close_matches(stem.split("-")[0], FILES, 1, 0.75)
            if near:
                out.append(f"{path.name}: expected a file {near[0]} that ends in {', '.join(KINDS)} (or .gz of one)")
    return out


def read_folder(folder: Path, levels: Sequence[str] = LEVELS,
                ) -> tuple[list[Instrument], list[Account], list[Counterparty]]:
    """Return instruments, accounts and counterparties of a folder (``instruments.*``, ``accounts.*``, and so on).

    Parameters
    ----------
    levels : of the hierarchy: an account has a column for each

    Raises
    ------
    FileRefused
        With every problem found, not only the first.
    """
    if not folder.is_dir():
        raise FileRefused(f"{folder}: expected a folder with instruments and accounts")
    found: dict[str, dict[str, Any]] = {stem: {} for stem in FILES}
    problems = _misnamed(folder)
    for stem, (cls, key, needed) in FILES.items():
        paths = sorted(p for p in folder.glob(f"{stem}*") if kind_of(p) in KINDS)
        if needed and not paths:
            problems.append(f"{folder}: expected a file {stem}.csv, .yaml, .jsonl or .parquet, found none")
        for path in paths:
            try:
                problems += _records(read_table(path), cls, key, found[stem], levels)
            except FileRefused as error:
                problems += error.problems
    if problems:
        raise FileRefused(problems)
    return (list(found["instruments"].values()), list(found["accounts"].values()),
            list(found["counterparties"].values()))


async def publish_reference(client: KafkaClient, topics: dict[str, str], instruments: Iterable[Instrument],
                            accounts: Iterable[Account], counterparties: Iterable[Counterparty] = ()) -> int:
    """Publish records to the compacted topics; return how many."""
    producer = client.producer(linger_ms=5, enable_idempotence=True)
    await producer.start()
    sent = []
    try:
        for instrument in instruments:
            sent.append(await producer.send(topics["reference.instruments"], encode(instrument),
                                            instrument.instrument.encode(), 0))
        for account in accounts:
            sent.append(await producer.send(topics["reference.accounts"], encode_account(account),
                                            account.account.encode(), 0))
        for c in counterparties:
            sent.append(await producer.send(topics["reference.counterparties"], encode(c), c.counterparty.encode(), 0))
        for future in sent:
            await future
    finally:
        await producer.stop()
    return len(sent)

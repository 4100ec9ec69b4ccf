"""Reference data from a folder of CSV, YAML or Parquet files, checked, and published to the compacted topics."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from models.contracts import OPTION_CLASSES
from models.fixed_income import PAPER_CLASSES, paper_of
from models.reference import Reference
from schemas.codec import encode
from schemas.numbers import check_text
from schemas.records import Account, Counterparty, Instrument
from schemas.refusal import refusal
from schemas.units import SHOWN, expiry_ns
from tables.kafka import KafkaClient

#: files of a folder: what they hold, the field that names a record, whether the file has to be there
FILES = {"instruments": (Instrument, "instrument", True), "accounts": (Account, "account", True),
         "counterparties": (Counterparty, "counterparty", False)}


#: whose expiry is counted with; of others it may be a month or a code, the venue knows the day
EXPIRING_CLASSES = OPTION_CLASSES | {"fx_forward"}


class ReferenceDataError(ValueError):
    """What is wrong with the files, a line each: file, line, field, value, what was expected."""


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of a file is, and its fields.

    Raises
    ------
    ReferenceDataError
        The file cannot be read: with its name, and the line where that is known.
    """
    try:
        if path.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(_text(path)), strict=True)
            for row in reader:
                yield f"{path.name}:{reader.line_num}", {k: v for k, v in row.items() if k and v not in (None, "")}
        elif path.suffix in (".yaml", ".yml"):
            yield from _yaml_rows(path)
        else:
            from pyarrow import parquet  # 100 ms to import: only where it is used

            for number, row in enumerate(parquet.read_table(path).to_pylist(), start=1):
                yield f"{path.name}[{number}]", {k: v for k, v in row.items() if v is not None}
    except (csv.Error, OSError, ValueError) as error:  # what Arrow raises is among them
        if isinstance(error, ReferenceDataError):
            raise
        raise ReferenceDataError(f"{path.name}: expected {path.suffix[1:]} that can be read: {error}") from error


def _text(path: Path) -> str:
    """Return the text of a file, which is UTF-8, with a byte-order mark or without."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ReferenceDataError(f"{path.name}:{line}: expected UTF-8, was byte 0x{raw[error.start]:02x} in "
                                 f"{raw[max(error.start - 20, 0) : error.start + 20]!r}") from error


def _yaml_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _text(path)
    try:
        tree, data = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = path.name if mark is None else f"{path.name}:{mark.line + 1}"
        raise ReferenceDataError(f"{where}: expected YAML, was {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:  # a date that there is not, lists within lists
        raise ReferenceDataError(f"{path.name}: expected YAML that can be read: {error}") from error
    if data is None:
        return
    if not isinstance(data, list) or tree is None:
        raise ReferenceDataError(f"{path.name}: expected a list of records, was {type(data).__name__}")
    for node, row in zip(tree.value, data, strict=True):
        where = f"{path.name}:{node.start_mark.line + 1}"
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise ReferenceDataError(f"{where}: expected a record of fields with names, was {str(row)[:SHOWN]!r}")
        yield where, row


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """YAML and Parquet give floats and dates; their shortest text is what was meant. Spaces part traders and tiers."""
    out = {k: str(v) if not isinstance(v, bool | str | list) else v for k, v in row.items()}
    if isinstance(out.get("traders"), str):
        out["traders"] = out["traders"].split()
    tiers = out.get("margin_tiers")
    if isinstance(tiers, str):  # up_to:initial:maintenance, the last one without an end
        parts = [dict(zip(("up_to", "initial", "maintenance"), t.split(":"), strict=False)) for t in tiers.split()]
        tiers = [{k: v for k, v in tier.items() if v} for tier in parts]
    if isinstance(tiers, list):
        out["margin_tiers"] = [_plain(tier) if isinstance(tier, dict) else tier for tier in tiers]
    return out


def _record_of(row: dict[str, Any], cls: type[msgspec.Struct]) -> Any:
    """Return the record of a row.

    Raises
    ------
    ValueError
        With the field, the value and what was expected.
    """
    fields = _plain(row)
    try:
        check_text(fields, cls)
        record = msgspec.convert(fields, cls, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(refusal(error, encode(fields), cls)) from error
    if isinstance(record, Instrument):
        add_to = Reference(lambda _: 0)
        add_to.add_instrument(record)
        if record.expiry is not None and record.asset_class in EXPIRING_CLASSES:
            expiry_ns(record.expiry)
        if record.asset_class in PAPER_CLASSES:
            paper_of(record)
    return record


def read_folder(folder: Path) -> tuple[list[Instrument], list[Account], list[Counterparty]]:
    """Return instruments, accounts and counterparties of a folder (``instruments.*``, ``accounts.*``, and so on).

    Raises
    ------
    ReferenceDataError
        With every problem found, not only the first.
    """
    found: dict[str, dict[str, Any]] = {stem: {} for stem in FILES}
    problems: list[str] = []
    for stem, (cls, key, needed) in FILES.items():
        paths = sorted(p for p in folder.glob(f"{stem}*") if p.suffix in (".csv", ".yaml", ".yml", ".parquet"))
        if needed and not paths:
            problems.append(f"{folder}: expected a file {stem}.csv, .yaml or .parquet, found none")
        for path in paths:
            try:
                for where, row in rows_of(path):
                    try:
                        record = _record_of(row, cls)
                    except (ValueError, ArithmeticError) as error:
                        problems.append(f"{where}: {error}")
                        continue
                    name = getattr(record, key)
                    if name in found[stem]:
                        problems.append(f"{where}: {key} {name!r} appears twice")
                    found[stem][name] = record
            except ReferenceDataError as error:
                problems.append(str(error))
    if problems:
        raise ReferenceDataError("\n".join(problems))
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
            sent.append(await producer.send(topics["reference.accounts"], encode(account), account.account.encode(), 0))
        for c in counterparties:
            sent.append(await producer.send(topics["reference.counterparties"], encode(c), c.counterparty.encode(), 0))
        for future in sent:
            await future
    finally:
        await producer.stop()
    return len(sent)

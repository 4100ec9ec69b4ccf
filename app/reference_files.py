"""Reference data from a folder of CSV, YAML or Parquet files, checked, and published to the compacted topics."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from models.fixed_income import PAPER_CLASSES, paper_of
from models.reference import check_margin, quantity_decimals
from schemas.codec import encode
from schemas.records import Account, Counterparty, Instrument
from tables.kafka import KafkaClient

#: files of a folder: what they hold, the field that names a record, whether the file has to be there
FILES = {"instruments": (Instrument, "instrument", True), "accounts": (Account, "account", True),
         "counterparties": (Counterparty, "counterparty", False)}


class ReferenceDataError(ValueError):
    """What is wrong with the files, a line each: file, line, field, value, what was expected."""


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of a file is, and its fields."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield f"{path.name}:{number}", {k: v for k, v in row.items() if k and v not in (None, "")}
    elif path.suffix in (".yaml", ".yml"):
        data = yaml.safe_load(path.read_text()) or []
        if not isinstance(data, list):
            raise ReferenceDataError(f"{path.name}: expected a list of records, was {type(data).__name__}")
        for number, row in enumerate(data, start=1):
            yield f"{path.name}[{number}]", row
    else:
        from pyarrow import parquet  # 100 ms to import: only where it is used

        for number, row in enumerate(parquet.read_table(path).to_pylist(), start=1):
            yield f"{path.name}[{number}]", {k: v for k, v in row.items() if v is not None}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """YAML and Parquet give floats and dates; their shortest text is what was meant. Spaces part traders and tiers."""
    out = {k: str(v) if not isinstance(v, bool | str | list) else v for k, v in row.items()}
    if isinstance(out.get("traders"), str):
        out["traders"] = out["traders"].split()
    tiers = out.get("margin_tiers")
    if isinstance(tiers, str):  # up_to:initial:maintenance, the last one without an end
        parts = [dict(zip(("up_to", "initial", "maintenance"), t.split(":"), strict=False)) for t in tiers.split()]
        tiers = [{k: v for k, v in tier.items() if v} for tier in parts]
    if tiers is not None:
        out["margin_tiers"] = [_plain(tier) for tier in tiers]
    return out


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
            for where, row in rows_of(path):
                try:
                    record = msgspec.convert(_plain(row), cls, strict=False)
                    if isinstance(record, Instrument):
                        quantity_decimals(record)
                        check_margin(record)
                        if record.asset_class in PAPER_CLASSES:
                            paper_of(record)
                    name = getattr(record, key)
                    if name in found[stem]:
                        problems.append(f"{where}: {key} {name!r} appears twice")
                    found[stem][name] = record
                except (msgspec.ValidationError, ValueError) as error:
                    problems.append(f"{where}: {error}")
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

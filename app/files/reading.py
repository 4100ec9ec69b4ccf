"""Files of records as tables: CSV, YAML, JSON, JSON lines and Parquet, plain or gzipped, each by explicit rules.

Text stays text: what a cell means is for the schema to say. Missing is an empty cell, null, or NaN in a column of
floats. Spaces around a cell are none of it.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.files.refusals import FileRefused, shown
from app.files.structured import json_rows, yaml_rows

KINDS = (".csv", ".yaml", ".yml", ".json", ".jsonl", ".ndjson", ".parquet")
SEPARATORS = ",;\t|"
#: what stands in a cell whose formula failed
SHEET_ERRORS = frozenset({"#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!"})
#: characters that nobody sees: two names that look alike would be two names
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]")
#: a formula that keeps digits as text, and the mark that does
_FORMULA = re.compile(r"=\".*\"|'\d.*", re.DOTALL)
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
         (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass
class Table:
    """Records by column; ``None`` is missing.

    Attributes
    ----------
    places : the line of each record, or its number where the file has no lines
    head : the line with the names of the columns, where there is one
    at : lines of single fields, where they are not that of their record
    problems : refusals of records that are not among them
    zones : time zones of columns of times, where the file names them
    """

    name: str
    columns: dict[str, list[Any]]
    places: list[int]
    has_lines: bool = True
    head: int | None = None
    at: dict[tuple[int, str], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    zones: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int, name: str = "") -> str:
        """Return the file and line of a record, or of one of its fields."""
        place = self.at.get((row, name), self.places[row])
        return f"{self.name}:{place}" if self.has_lines else f"{self.name}[{place}]"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the fields of each record, without those that are missing."""
        names = list(self.columns)
        for cells in zip(*self.columns.values(), strict=True):
            yield {n: c for n, c in zip(names, cells, strict=True) if c is not None}


class Utc(int):
    """A time with a zone, in nanoseconds since 1970."""


class Naive(int):
    """A time without a zone, in nanoseconds since 1970 of its own clock."""


def kind_of(path: Path) -> str:
    """Return how a file ends, ``.gz`` aside."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def stem_of(path: Path) -> str:
    """Return the name of a file without its endings."""
    return Path(re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)).stem


def read_table(path: Path, head: Sequence[str] | None = None) -> Table:
    """Return a file as a table.

    Parameters
    ----------
    head : names of the columns of a CSV file that does not name them

    Raises
    ------
    FileRefused
        It cannot be read as what its name says: with the file, and line, field and value where they are known.
    """
    kind = kind_of(path)
    if kind not in KINDS:
        raise FileRefused(f"{path.name}: expected a file that ends in {', '.join(KINDS)} (or .gz of one)")
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise FileRefused(f"{path.name}: expected a file that can be read: {error}") from error
    if kind == ".parquet":
        from app.files.columns import parquet_columns  # pyarrow takes 100 ms to import: only where it is used

        columns, zones = parquet_columns(path.name, raw)
        count = len(next(iter(columns.values()), []))
        table = Table(path.name, columns, list(range(1, count + 1)), has_lines=False, zones=zones)
    elif kind == ".csv":
        table = _csv(path.name, raw, head)
    else:
        text = text_of(path.name, raw)
        rows, problems = (yaml_rows if kind in (".yaml", ".yml") else json_rows)(path.name, text, kind != ".json")
        names = dict.fromkeys(n for row in rows for n in row.fields)
        table = Table(path.name, {n: [row.fields.get(n) for row in rows] for n in names},
                      [row.line for row in rows], kind != ".json", problems=problems)
        table.at = {(i, n): line for i, row in enumerate(rows) for n, line in row.lines.items() if line != row.line}
    for name, cells in table.columns.items():
        if name != name.strip() or not name:
            table.problems.append(f"{table.name}: expected a name of a column, was {name!r}")
        _check_text(table, name, cells)
    return table


def text_of(name: str, raw: bytes) -> str:
    """Return the text of a file: UTF-8, or what its byte-order mark says.

    Raises
    ------
    FileRefused
        It is neither: with every line that is not.
    """
    encoding = next((e for mark, e in _BOMS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise FileRefused(f"{name}: expected {encoding.upper()} as its byte-order mark says, was byte "
                              f"0x{raw[error.start]:02x} at {error.start}") from error
        raise FileRefused(_not_utf8(name, raw)) from error
    if "\x00" in text:
        raise FileRefused(f"{name}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: expected UTF-8, or UTF-16 with a "
                          "byte-order mark, was a zero byte")
    return text if "\n" in text else text.replace("\r", "\n")


def _not_utf8(name: str, raw: bytes) -> Iterator[str]:
    lines = raw.split(b"\n")
    head = re.split("[,;\t|]", lines[0].decode("utf-8-sig", "replace").strip())
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            cells = re.split(b"[,;\t|]", line)
            before = len(re.findall(b"[,;\t|]", line[: error.start]))
            # what stands in which field: of a CSV file whose cells hold no separators
            known = name.lower().endswith((".csv", ".csv.gz")) and len(cells) == len(head) and number > 1
            where, value = (f"{head[before].strip()}: ", cells[before]) if known else (
                "", line[max(error.start - 20, 0) : error.start + 20])
            yield (f"{name}:{number}: {where}expected UTF-8 (or UTF-16 with a byte-order mark), was byte "
                   f"0x{line[error.start]:02x} in {value.strip()!r}")


def _separator(name: str, head: str) -> str:
    """Return what parts the cells: whichever of comma, semicolon, tab and bar is in the head, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", head)
    found = [s for s in SEPARATORS if s in bare]
    if len(found) > 1:
        raise FileRefused(f"{name}:1: expected names of columns with one separator between them, was {shown(head)}")
    return found[0] if found else ","


def _csv(name: str, raw: bytes, given: Sequence[str] | None = None) -> Table:
    text = text_of(name, raw)
    skipped = len(text) - len(text.lstrip("\r\n"))
    text, skipped = text[skipped:], text.count("\n", 0, skipped)
    first, _, rest = text.partition("\n")
    if found := re.fullmatch(r"sep=(.)\r?", first):  # what spreadsheets write in front
        text, skipped, separator = rest, skipped + 1, found.group(1)
    else:
        separator = _separator(name, first.rstrip("\r"))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    table = Table(name, {}, [])
    rows: list[list[str | None]] = []
    head: list[str] | None = None if given is None else _head(name, 1, list(given))
    start = 0
    try:
        for raw_cells in reader:
            line, start = start + 1 + skipped, reader.line_num
            cells = [c.strip() or None for c in raw_cells]
            if head is None:
                head, table.head = _head(name, line, [c or "" for c in cells]), line
            elif not any(cells):
                continue
            elif len(cells) != len(head):
                table.problems.append(f"{name}:{line}: expected {len(head)} cells as its head has, was {len(cells)}: "
                                      f"{shown(separator.join(raw_cells))}")
            else:
                rows.append(cells)
                table.places.append(line)
    except csv.Error as error:
        table.problems.append(f"{name}:{start + 1 + skipped}: expected CSV that can be read: {error}")
    for k, column in enumerate(head or ()):
        values: list[Any] = [row[k] for row in rows]
        if column:
            table.columns[column] = values
        elif any(v is not None for v in values):
            where = next(i for i, v in enumerate(values) if v is not None)
            table.problems.append(f"{table.where(where)}: expected a column with a name, "
                                  f"was {shown(values[where])} in column {k + 1} without one")
    return table


def _head(name: str, line: int, names: list[str]) -> list[str]:
    found = [n for n in names if n]
    if not found or all(re.fullmatch(r"[-+.\d:TZ /]*", n) for n in found):
        raise FileRefused(f"{name}:{line}: expected names of columns, was {shown(','.join(names))}")
    twice = sorted({n for n in found if found.count(n) > 1})
    if twice:
        raise FileRefused(f"{name}:{line}: {twice[0]}: expected each column once, "
                          f"was there {found.count(twice[0])} times")
    return names


def _check_text(table: Table, name: str, cells: list[Any]) -> None:
    """Say what nobody can have meant in a column of text; leave it out."""
    wrong = {c for c in {c for c in cells if isinstance(c, str)}
             if _UNSEEN.search(c) or c in SHEET_ERRORS or _FORMULA.fullmatch(c)}
    for i, cell in enumerate(cells if wrong else ()):
        if isinstance(cell, str) and cell in wrong:
            what = ("characters that can be seen" if _UNSEEN.search(cell)
                    else "a value, not an error or a formula of a spreadsheet")
            table.problems.append(f"{table.where(i, name)}: {name}: expected {what}, was {shown(cell)}")
            cells[i] = None

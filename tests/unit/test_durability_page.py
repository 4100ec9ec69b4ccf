"""The page of what is synced: every topic and every place that writes a file is on it, and nothing that is not there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from app import migration, reconcile
from app.cli import cli
from app.settings import Settings
from schemas.topics import TOPICS
from tables import journal, store, whole_file
from tables.exit_codes import ExitCode

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "durability.md").read_text()
PRODUCT = ("app", "agents", "tables", "models", "schemas")
#: what writes to a disk, by the name of what is called
WRITES = {"write_text", "write_bytes", "write_table", "write_whole", "mkdir", "copyfile", "copytree", "Rdict", "savetxt", "to_parquet", "to_csv"}
#: makes the folders that others write to, or writes for them
HELPERS = {"tables/whole_file.py"}


def rows(heading: str) -> list[list[str]]:
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and not line.startswith(("| file", "| topic"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_topic_is_on_it_once_with_how_it_is_cleaned_up() -> None:
    found = {row[0].strip("`"): row[1] for row in rows("Topics")}
    assert len(rows("Topics")) == len(found)
    assert found == {t.name: t.broker_config(1, 1)["cleanup.policy"] for t in TOPICS}
    assert all(len(row) == 4 and all(row) for row in rows("Topics"))


def writes(path: Path) -> bool:
    """Whether a module has a call that writes to a disk."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        text = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if name in WRITES or (name == "open" and (any(re.fullmatch(r"[wax]b?\+?|r\+b?", mode) for mode in text) or "O_CREAT" in ast.unparse(node))):
            return True
    return False


def test_every_module_that_writes_files_is_on_it_and_no_other() -> None:
    named = {name for row in rows("Files") for name in re.findall(r"`((?:app|agents|tables|models|schemas)/[\w/]+\.py)`", row[1])}
    found = {str(p.relative_to(ROOT)) for package in PRODUCT for p in (ROOT / package).rglob("*.py") if writes(p)}
    assert found - HELPERS - named == set(), "a file is written that the page does not know"
    assert named - found == set(), "the page names what writes nothing"
    assert all(len(row) == 5 and all(row) for row in rows("Files"))


def test_what_it_says_of_settings_exit_codes_and_tests_is_there() -> None:
    for variable in re.findall(r"DESKRISK_([A-Z_]+)", PAGE):
        assert variable.lower() in Settings.model_fields, variable
    app = typer.main.get_command(cli)
    for words in re.findall(r"`deskrisk ([a-z ]+)", PAGE):
        command: Any = app
        for word in words.split():
            command = command.commands[word]
    for path in re.findall(r"`((?:tests|docs)/[\w/.]+)`", PAGE) + [f"docs/{link}" for link in re.findall(r"\]\((\w+\.md)\)", PAGE)]:
        assert (ROOT / path).exists(), path
    assert f"exit code {int(ExitCode.DAMAGED)}" in PAGE and journal.JournalDamaged.exit_code is ExitCode.DAMAGED


@pytest.mark.parametrize(("row", "writer", "synced"), [
    ("positions-N", store.DiskPartition, False), (".journal", journal, False), ("reconciliation.json", reconcile.remember, True),
    ("manifest.json", migration.keep_manifest, True), ("TOPIC.parquet", migration.keep_table, True)])
def test_what_it_calls_synced_is_synced(row: str, writer: object, synced: bool) -> None:
    (said,) = [r[2] for r in rows("Files") if row in r[0]]
    source = inspect.getsource(writer)  # type: ignore[arg-type]
    assert said.startswith("never") is not synced
    assert bool(re.search(r"\b(write_whole|sync|fsync)\(", source)) is synced
    assert inspect.getsource(whole_file.write_whole).count("sync(") == 2, "the file, and its folder"

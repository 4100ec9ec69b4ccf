"""What users do beside sending records: commands, files, calculators."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.calc import run_lines
from app.calc.line import CALCULATORS
from app.forking import SERVER
from app.history import load_history
from app.rehearse.live import Live
from app.rehearse.names import Names
from app.rehearse.scenario import Scenario
from app.supervisor import HOME

COMMAND_S = 120.0
TRACEBACK = "Traceback (most recent call last)"
#: columns whose cells name what a file of limits or reference data brings in
_BRINGS = {"limits": ("limit_id",), "reference": ("instrument", "account", "book", "desk", "strategy", "fund")}


@dataclass(frozen=True)
class Said:
    """What a command said: its exit code, its output, and what it said that was wrong."""

    exit: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.output}\n{self.errors}".strip()


class Desk:
    """A folder and a command line for one scenario."""

    def __init__(self, live: Live, scenario: Scenario, names: Names) -> None:
        self._live, self._scenario, self._names = live, scenario, names
        self._folder = tempfile.TemporaryDirectory(prefix="deskrisk-rehearse-files-")

    def close(self) -> None:
        """Forget the folder."""
        self._folder.cleanup()

    async def command(self, line: str) -> Said:
        """Run a command line against the installation."""
        words = shlex.split(line)
        return await self._run(self._names.command(words[1:] if words[:1] == ["deskrisk"] else words))

    async def _run(self, words: list[str]) -> Said:
        held = self._live.installation
        environment = os.environ | held.environment() | {
            "DESKRISK_GATEWAY_URL": held.url if "gateway" in held.running() else "",
            "DESKRISK_API_TOKEN": held.tokens["risk"],
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))}
        async with self._live.commands:
            process = await SERVER.task(words, environment, Path(self._folder.name), separate_errors=True)
            try:
                out, err = await asyncio.wait_for(process.communicate(), COMMAND_S)
            except TimeoutError:
                process.kill()
                await process.wait()
                return Said(-1, "", f"no end after {COMMAND_S:.0f} s")
        off = self._names.off
        return Said(process.returncode or 0, off(out.decode(errors="replace")), off(err.decode(errors="replace")))

    async def file(self, body: Mapping[str, Any]) -> Said:
        """Write a file, and give it to the command a user would use."""
        kind, name = body["as"], Path(body["name"]).name
        folder = Path(self._folder.name) / kind
        folder.mkdir(exist_ok=True)
        for former in folder.glob(f"{Path(name).stem}.*"):  # a step's file stands in the place of one of the same name
            former.unlink()
        if "base64" in body:
            (folder / name).write_bytes(base64.b64decode(body["base64"]))
        else:
            self._learn(kind, name, body["text"])
            (folder / name).write_bytes(self._names.file(name, body["text"]).encode())
        if kind == "reference":
            self._complete(folder)
            return await self._run(["reference", "load", str(folder)])
        if kind == "limits":
            return await self._run(["limits", "load", str(folder / name), "--by", "rm", "--reason",
                                    "limits of a rehearsal"])
        if kind == "replay":
            return await self._run(["replay", str(folder / name), "--speed", "0", "--as-is"])
        return await asyncio.get_running_loop().run_in_executor(None, _history, folder / name)

    def _learn(self, kind: str, name: str, text: str) -> None:
        """Learn the names that a file brings in: readers look for them with a prefix."""
        for column in _BRINGS.get(kind, ()):
            if name.endswith(".csv"):
                rows = csv.reader(io.StringIO(text))
                head = [c.strip().lstrip("\ufeff") for c in next(rows, [])]
                if column in head:
                    self._names.known.update(r[head.index(column)] for r in rows if len(r) > head.index(column))
            else:
                found = re.findall(rf"\b{column}:\s*[\"']?([^\s,\"'}}\]]+)", text)
                self._names.known.update(found)
        self._names.known.discard("")

    def _complete(self, folder: Path) -> None:
        """Add the file that a folder of reference data needs beside the one given: what the scenario has anyhow."""
        for stem, word, empty in (
                ("instruments", "instrument", {"instrument": "X", "asset_class": "equity", "currency": "USD"}),
                ("accounts", "account", {"account": "A", "book": "B", "desk": "D", "strategy": "S", "fund": "F"})):
            if any(p.stem.split("-")[0] == stem for p in folder.iterdir()):
                continue
            rows = [self._names.record(r) for r in self._scenario.reference.get(stem) or [empty]]
            rows = [{k: v for k, v in r.items() if isinstance(v, str | int | float)} for r in rows]
            fields = sorted({k for r in rows for k in r}, key=lambda k: (k != word, k))
            with (folder / f"{stem}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)


def _history(path: Path) -> Said:
    try:
        found = load_history(str(path), False, 1)
    except ValueError as error:
        return Said(1, "", f"{path.name}: {error}" if path.name not in str(error) else str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, a user would see a traceback
        return Said(1, "", f"{TRACEBACK}: {type(error).__name__}: {error}")
    return Said(0, f"{len(found.moves)} days of {len(found.factors)} factors", "")


def calculated(name: str, line: Any) -> dict[str, Any]:
    """Return what a calculator answers to a line."""
    if name not in CALCULATORS:
        return {"error": {"field": "name", "value": name, "expected": "a calculator (`deskrisk calc list`)"}}
    try:
        (found,) = run_lines(name, [json.dumps(line)])
    except Exception as error:  # noqa: BLE001 - whatever it is, a user would see a traceback
        return {"traceback": f"{type(error).__name__}: {error}"}
    return json.loads(json.dumps(found))


def refused(said: Said, parts: Mapping[str, Any]) -> list[str]:
    """Return what is missing of a refusal: that it is one, and the file, line, field and value that it names."""
    wrong = [] if said.exit != 0 else ["expected a refusal, seen exit code 0"]
    text = said.text
    for part, value in parts.items():
        shown = re.escape(str(value))
        pattern = {"line": rf"(?:[:\[]|line )\s*{shown}\b", "file": shown}.get(part, rf"(?<!\w){shown}(?!\w)")
        if not re.search(pattern, text):
            wrong.append(f"{part}: expected {value!r} in the refusal, seen {text[-300:]!r}")
    return wrong

"""F28: every file that is kept, in any state that a kill, a power cut or a harmed file leaves: the truth, or a clear refusal.

Some hundred states in every run, ten times as many in `make nightly`. A failing seed is in the test's message.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rocksdict import Options

from app.migration import keep_manifest, keep_table, manifest_of
from app.reconcile import remember, remembered
from app.recovery import Refused
from tables import writer
from tables.journal import Journal, JournalDamaged
from tables.store import DiskPartition
from tables.whole_file import Damaged, make_folder
from tests.faults.crash_states import KINDS, Recording
from tests.faults.fake_broker import Broker, Crash, Scheduler
from tests.faults.lives import Life, trades
from tests.folding import assert_equal, naive

SEEDS = int(os.environ.get("DESKRISK_SEEDS", "240"))
NIGHTLY = SEEDS > 240
STATES = {"store": 600 if NIGHTLY else 60, "journal": 400 if NIGHTLY else 40, "breaks": 200 if NIGHTLY else 20, "backup": 100 if NIGHTLY else 15}


class SmallStore(DiskPartition):
    """A store that goes through many files: its buffers are full after some rows."""

    recording: Recording | None = None

    @staticmethod
    def _options() -> Options:
        options = DiskPartition._options()
        options.set_write_buffer_size(1 << 14)
        return options

    def _write(self, part: list[tuple[bytes, bytes | None]], position: int, whole: bool) -> None:
        super()._write(part, position, whole)
        if self.recording is not None:
            self.recording.note()


async def recorded_life(folder: Path, rng: np.random.Generator, log: list[dict[str, Any]]) -> tuple[Recording, list[Broker]]:
    """Live one or two lives on a store; return its recording, and the broker as it was at each moment of it."""
    recording, broker, brokers = Recording(folder), Broker(), list[Broker]()
    (folder / "p").mkdir(parents=True)

    def note() -> None:
        Recording.note(recording)
        brokers.append(deepcopy(broker))

    recording.note = note  # type: ignore[method-assign]
    for crash_at in (int(rng.integers(30, 120)), None):
        store = SmallStore(folder / "p", "changelog")
        store.recording = recording
        life = Life(broker, store, Scheduler(crash_at=crash_at, on_point=lambda _: note() if rng.random() < 0.1 else None), rng)  # type: ignore[arg-type]
        try:
            await life.work(log)
        except Crash:
            note()
            store.close()
        note()
    return recording, brokers


async def start_from(folder: Path, broker: Broker, rng: np.random.Generator, log: list[dict[str, Any]]) -> str:
    """Start on a folder as it was found; hold the table against the fold of the log. Return what became of the store."""
    there = (folder / "p").exists() and any((folder / "p").iterdir())
    store = SmallStore(folder / "p", "changelog")
    life = Life(broker, store, Scheduler(), rng)  # type: ignore[arg-type]
    had = store.offset()
    await life.work(log)
    assert_equal(life.part, naive(log))
    if store.rebuilt is not None:
        return "thrown away"
    if not there or had is None:
        return "not there"
    return "as on the log" if life.from_store else "not of this log"


@pytest.fixture
def seen() -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    yield found
    print(dict(found))


def test_a_store_in_any_state(tmp_path: Path, random_seed: int, seen: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    per_life = 12
    for life in range(STATES["store"] // per_life):
        seed = life if life % 2 else random_seed + life
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(writer, "STAGED_BYTES_MAX", 300 if rng.random() < 0.5 else 16_384)  # rows ahead of their offset
        log = trades(rng, 90)
        recording, brokers = asyncio.run(recorded_life(tmp_path / f"{life}", rng, log))
        for k in range(per_life):
            kind, at, home = KINDS[k % len(KINDS)], int(rng.integers(len(recording.moments))), tmp_path / "state"
            recording.state(rng, kind, at, home)
            # it comes back at once, when others have gone on with the changelog, or to one that was made anew
            came = rng.random()
            broker = deepcopy(brokers[at if came < 0.5 else int(rng.integers(at, len(brokers)))]) if came < 0.9 else Broker()
            try:
                seen[f"{kind}: {asyncio.run(start_from(home, broker, rng, log))}"] += 1
            except (AssertionError, LookupError, ValueError) as error:
                raise AssertionError(f"seed {seed}, {kind} at {at}: {error!r}") from error
            shutil.rmtree(home, ignore_errors=True)
    outcomes = Counter(key.partition(": ")[2] for key in seen.elements())
    assert min(outcomes[o] for o in ("thrown away", "as on the log", "not there", "not of this log")) > 0, outcomes


def kept_by(seed: int, folder: Path, rng: np.random.Generator) -> tuple[Recording, list[list[bytes]], list[bytes]]:
    """Keep decisions in a journal as a gate does, in files that follow each other, some of them arrived meanwhile."""
    loop = asyncio.new_event_loop()
    recording, needed, everything = Recording(folder), list[list[bytes]](), list[bytes]()
    journal = Journal(folder, segment_bytes=600)
    waiting: list[tuple[asyncio.Future[None], list[bytes]]] = []

    def note() -> None:
        recording.note()
        needed.append([v for _, values in waiting for v in values])

    note()
    for k in range(int(rng.integers(5, 40))):
        values = [b"%d decision %d.%d " % (seed, k, n) + rng.bytes(int(rng.integers(1, 60))) for n in range(int(rng.integers(1, 4)))]
        journal.keep(values)
        everything += values
        sent: asyncio.Future[None] = loop.create_future()
        journal.sent(0, sent)
        waiting.append((sent, values))
        note()
        while waiting and rng.random() < 0.6:  # the broker has the oldest
            waiting.pop(0)[0].set_result(None)
            note()
    for segment in journal._segments:
        os.close(segment.handle)
    loop.close()
    return recording, needed, everything


def test_a_journal_in_any_state(tmp_path: Path, random_seed: int, seen: Counter[str]) -> None:
    for k in range(STATES["journal"]):
        seed = k if k % 2 else random_seed + k
        rng = np.random.default_rng(seed)
        home, folder, kind = tmp_path / "state", tmp_path / f"{k}", KINDS[k % len(KINDS)]
        recording, needed, everything = kept_by(seed, folder, rng)
        at = int(rng.integers(len(recording.moments)))
        home.mkdir(mode=0o700)
        recording.state(rng, kind, at, home)
        try:
            found = Journal(home).take_left()
        except JournalDamaged as error:
            assert kind in ("power cut", "bit flipped", "cut off") and "then move the file away" in str(error), (seed, kind)
            seen[f"{kind}: refused"] += 1
        else:
            places = [everything.index(v) for v in found]
            assert places == sorted(set(places)), (seed, kind, "as they were kept, each once")
            if kind in ("killed", "bit flipped"):
                assert set(needed[at]) <= set(found), (seed, kind, at)
            seen[f"{kind}: {'all of it' if set(needed[at]) <= set(found) else 'what was written by then'}"] += 1
        shutil.rmtree(home)
        shutil.rmtree(folder)
    assert seen["killed: all of it"] and seen["bit flipped: refused"], seen


def test_the_history_of_breaks_in_any_state(tmp_path: Path, random_seed: int, seen: Counter[str]) -> None:
    for k in range(STATES["breaks"]):
        seed = k if k % 2 else random_seed + k
        rng = np.random.default_rng(seed)
        home, folder, kind = tmp_path / "state", tmp_path / f"{k}", KINDS[k % len(KINDS)]
        book = folder / "data" / "reconciliation.json"
        folder.mkdir()
        recording, said = Recording(folder), [remembered(book)]
        recording.note()
        returned = [1]
        with recording.recording():
            for turn in range(6):
                known, history = remembered(book)
                since = {f"S|A|I{int(n)}|quantity": turn * 100 + int(n) for n in rng.integers(0, 8, 5)}
                remember(book, known, history, since, turn)
                said.append(remembered(book))
                returned.append(len(recording.moments))
        at = int(rng.integers(len(recording.moments)))
        recording.state(rng, kind, at, home)
        last = sum(r <= at + 1 for r in returned) - 1
        try:
            found = remembered(home / "data" / "reconciliation.json")
        except Damaged as error:
            assert kind in ("bit flipped", "cut off") and "move it away" in str(error), (seed, kind)
            seen[f"{kind}: refused"] += 1
        else:
            if kind in ("killed", "power cut"):
                assert found in said[last : last + 2], (seed, kind, at)
            elif kind != "file gone":
                assert found in said, (seed, kind, at)
            seen[f"{kind}: {'all of it' if found in said[last : last + 2] else 'none'}"] += 1
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(folder)
    assert seen["power cut: all of it"] and seen["bit flipped: refused"], seen


def test_a_backup_in_any_state(tmp_path: Path, random_seed: int, seen: Counter[str]) -> None:
    for k in range(STATES["backup"]):
        seed = k if k % 2 else random_seed + k
        rng = np.random.default_rng(seed)
        home, parent, kind = tmp_path / "state", tmp_path / f"{k}", KINDS[k % len(KINDS)]
        folder = parent / "backup"
        parent.mkdir()
        recording = Recording(parent)
        recording.note()
        tables = {name: pa.table({"offset": list(range(50)), "value": [rng.bytes(30) for _ in range(50)]}) for name in ("trades", "limits")}
        with recording.recording():
            make_folder(folder)
            files = {name: keep_table(folder, name, table) for name, table in tables.items()}
            manifest = keep_manifest(folder, files, {"prefix": "", "partitions": 4})
        recording.note()
        done = len(recording.moments) - 1
        at = done if rng.random() < 0.5 else int(rng.integers(len(recording.moments)))
        recording.state(rng, kind, at, home)
        try:
            found = manifest_of(home / "backup")
        except Refused as error:
            assert not (at == done and kind in ("killed", "power cut")), (seed, kind, error)
            assert any(text in str(error) for text in ("expected a backup", "take another backup", "expected the file", "expected format")), error
            seen[f"{kind}: refused"] += 1
        else:
            assert found == manifest, (seed, kind, at)
            seen[f"{kind}: all of it"] += 1
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(parent)
    assert seen["power cut: all of it"] + seen["killed: all of it"] and seen["bit flipped: refused"], seen

"""F14, F22: a damaged store is built again, a held lock is an error; rows of another version are never read by guess."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rocksdict import WriteBatch

from tables import store
from tables.partition import Marker
from tables.store import DiskPartition


def stored(path: Path) -> DiskPartition:
    disk = DiskPartition(path, "topic")
    disk.write({b"P1": b"row", b"P2": b"other"}, 17)
    return disk


@pytest.mark.parametrize("harm", ["file deleted", "byte flipped", "cut short", "other installation"])
def test_a_damaged_store_is_thrown_away_and_starts_empty(tmp_path: Path, harm: str) -> None:
    disk = stored(tmp_path / "p")
    for k in range(3000):
        disk.write({b"P%d" % k: b"x" * 200}, 18 + k)
    disk.close()
    files = sorted((tmp_path / "p").iterdir())
    if harm == "file deleted":
        next(f for f in files if f.name.startswith("MANIFEST")).unlink()
    elif harm in ("byte flipped", "cut short"):
        manifest = next(f for f in files if f.name.startswith("MANIFEST"))
        raw = bytearray(manifest.read_bytes())
        manifest.write_bytes(bytes(raw[:10]) if harm == "cut short" else bytes([raw[0] ^ 255, raw[1] ^ 255]) + bytes(raw[2:]))
    again = DiskPartition(tmp_path / "p", "topic" if harm != "other installation" else "another")
    assert again.rebuilt is not None and again.offset() is None and again.load().rows == {}
    again.write({b"P9": b"new"}, 5)
    assert again.offset() == 5
    again.close()


def test_a_held_lock_is_an_error_not_a_reason_to_delete(tmp_path: Path) -> None:
    disk = stored(tmp_path / "p")
    with pytest.raises(Exception, match=r"(?i)lock"):
        DiskPartition(tmp_path / "p", "topic")
    assert disk.load().rows == {b"P1": b"row", b"P2": b"other"}
    disk.close()


def test_a_block_that_cannot_be_read_ends_no_restore_early(tmp_path: Path) -> None:
    """An iterator of RocksDB ends there without a word; what is "checksum mismatch" of a block is no lock."""
    disk = stored(tmp_path / "p")
    rng = np.random.default_rng(0)
    disk.write({b"P%04d" % k: rng.bytes(400) for k in range(2_000)}, 18)
    disk.close()
    (table,) = [f for f in sorted((tmp_path / "p").iterdir()) if f.suffix == ".sst" and f.stat().st_size > 100_000]
    raw, outcomes = table.read_bytes(), set()
    for at in range(2_000, len(raw), len(raw) // 12):
        shutil.copytree(tmp_path / "p", tmp_path / "q")
        (tmp_path / "q" / table.name).write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        again = DiskPartition(tmp_path / "q", "topic")
        found = again.load()
        assert (len(found.rows), found.position) in ((2_002, 18), (0, 0)), at
        outcomes.add(again.rebuilt)
        again.write({b"P1": b"new"}, 20)
        assert again.load().rows == found.rows | {b"P1": b"new"}
        again.close()
        shutil.rmtree(tmp_path / "q")
    assert "its rows do not add up" in outcomes


def test_rows_ahead_of_their_offset_say_how_far(tmp_path: Path) -> None:
    disk = stored(tmp_path / "p")
    disk.write({b"P3": b"large"}, 25, whole=False)
    disk.close()
    again = DiskPartition(tmp_path / "p", "topic")
    found = again.load()
    assert (found.position, found.ahead) == (17, 25) and found.rows[b"P3"] == b"large"
    again.write({}, 30)
    assert (again.load().position, again.load().ahead) == (30, 30)
    again.close()


def test_a_store_of_the_format_before_is_built_again(tmp_path: Path) -> None:
    disk = DiskPartition(tmp_path / "p", "topic")
    disk._db[store.FORMAT_KEY] = json.dumps(["1", "topic"]).encode()
    disk._db[b"\x00changelog_offset"] = b"17"
    disk.close()
    again = DiskPartition(tmp_path / "p", "topic")
    assert again.rebuilt is not None and again.empty
    again.close()


def test_a_marker_of_another_version_is_refused() -> None:
    ((_, good),) = Marker({"trades": 5}, 3).close([])
    assert Marker.unpack(good).offsets == {"trades": 5}
    with pytest.raises(ValueError, match="version 1, was 2"):
        Marker.unpack(json.dumps(json.loads(good) | {"version": 2}).encode())


def test_a_write_that_is_cut_short_leaves_its_offset_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote is read from the changelog once more; an offset ahead of its rows would lose them."""
    disk, opened = stored(tmp_path / "p"), 0

    def batch(raw_mode: bool) -> WriteBatch:
        nonlocal opened
        opened += 1
        if opened > 2:
            raise OSError("disk full")
        return WriteBatch(raw_mode=raw_mode)

    monkeypatch.setattr(store, "WriteBatch", batch)
    with pytest.raises(OSError, match="disk full"):
        disk.write({b"N%04d" % k: b"x" for k in range(3 * store.SLICE_ROWS)}, 99)
    disk.close()
    monkeypatch.undo()
    again = DiskPartition(tmp_path / "p", "topic")
    assert again.offset() == 17 and b"P1" in again.load().rows
    rows = {b"N%04d" % k: b"y" for k in range(3 * store.SLICE_ROWS + 1)}
    again.write(rows | {b"P1": None}, 99)
    assert again.offset() == 99 and again.load().rows == rows | {b"P2": b"other"}
    again.write({}, 100)
    assert again.offset() == 100
    again.close()

"""F14, F22: a damaged store is built again, a held lock is an error; rows of another version are never read by guess."""

from __future__ import annotations

import json
from pathlib import Path

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
    assert again.rebuilt is not None and again.offset() is None and again.rows() == {}
    again.write({b"P9": b"new"}, 5)
    assert again.offset() == 5
    again.close()


def test_a_held_lock_is_an_error_not_a_reason_to_delete(tmp_path: Path) -> None:
    disk = stored(tmp_path / "p")
    with pytest.raises(Exception, match=r"(?i)lock"):
        DiskPartition(tmp_path / "p", "topic")
    assert disk.rows() == {b"P1": b"row", b"P2": b"other"}
    disk.close()


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
    assert again.offset() == 17 and b"P1" in again.rows()
    rows = {b"N%04d" % k: b"y" for k in range(3 * store.SLICE_ROWS + 1)}
    again.write(rows | {b"P1": None}, 99)
    assert again.offset() == 99 and again.rows() == rows | {b"P2": b"other"}
    again.write({}, 100)
    assert again.offset() == 100
    again.close()

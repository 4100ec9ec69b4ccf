"""What was answered survives a kill: whole entries, of processes that are gone, until the broker has them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tables.journal import Journal, JournalDamaged


def arrived(loop: asyncio.AbstractEventLoop, done: bool = True) -> asyncio.Future[None]:
    future: asyncio.Future[None] = loop.create_future()
    if done:
        future.set_result(None)
    return future


@pytest.fixture
def left_files(tmp_path: Path) -> Path:
    """A journal whose process was killed after three entries."""
    program = ("import os, sys, signal, pathlib; from tables.journal import Journal\n"
               "j = Journal(pathlib.Path(sys.argv[1])); j.keep([b'one', b'two']); j.keep([b'three']); os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    return tmp_path


def test_the_next_one_finds_what_a_kill_left_until_it_says_that_it_has_arrived(left_files: Path) -> None:
    first = Journal(left_files)
    assert first.take_left() == [b"one", b"two", b"three"]
    assert Journal(left_files).take_left() == [], "somebody has them in hand"
    for segment in first._left:  # as if it were killed with them in hand
        os.close(segment.handle)
    second = Journal(left_files)
    assert second.take_left() == [b"one", b"two", b"three"]
    second.forget_left()
    assert Journal(left_files).take_left() == []


@pytest.mark.parametrize(("cut", "found"), [(1, [b"one", b"two"]), (5, [b"one", b"two"]), (12, [b"one", b"two"]), (13, [b"one", b"two"]), (14, [b"one"])])
def test_what_was_cut_off_was_not_answered(left_files: Path, cut: int, found: list[bytes]) -> None:
    (path,) = left_files.glob("*.journal")
    path.write_bytes(path.read_bytes()[:-cut])
    assert Journal(left_files).take_left() == found


def test_a_file_that_got_its_length_alone_ends_there(left_files: Path) -> None:
    """What some file systems leave of a write that a power cut took: it would be entries without a byte."""
    (path,) = left_files.glob("*.journal")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert Journal(left_files).take_left() == [b"one", b"two", b"three"]


@pytest.mark.parametrize("at", range(35))
def test_what_is_not_as_it_was_written_is_refused(left_files: Path, at: int) -> None:
    """A flipped bit anywhere: what lies behind it was answered, too, and would be lost in silence."""
    (path,) = left_files.glob("*.journal")
    data = bytearray(path.read_bytes())
    assert len(data) == 35
    for bit in range(8):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        with pytest.raises(JournalDamaged, match=r"not what was written.*then move the file away"):
            Journal(left_files).take_left()
    path.unlink()
    assert Journal(left_files).take_left() == []


def test_those_of_a_process_that_lives_are_its_own(tmp_path: Path) -> None:
    living = Journal(tmp_path)
    living.keep([b"mine"])
    assert Journal(tmp_path).take_left() == [] and living.take_left() == []


def test_a_file_goes_when_all_of_it_has_arrived_and_not_before(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    journal = Journal(tmp_path, segment_bytes=100)
    on_its_way = arrived(loop, done=False)
    for k in range(6):
        journal.keep([b"x" * 60])
        journal.sent(0, on_its_way if k < 2 else arrived(loop))
        journal.sent(1, arrived(loop))
    assert len(list(tmp_path.glob("*.journal"))) == 2, "the first, which is on its way, and the present one"
    on_its_way.set_result(None)
    for _ in range(2):
        journal.keep([b"x" * 60])
    assert len(list(tmp_path.glob("*.journal"))) == 1
    journal.close()
    assert not tmp_path.exists(), "whoever stops in order leaves nothing"
    loop.close()


def test_what_did_not_arrive_outlives_a_stop(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    journal = Journal(tmp_path)
    journal.keep([b"lost on the way"])
    failed = arrived(loop, done=False)
    failed.set_exception(ConnectionError())
    journal.sent(0, failed)
    journal.close()
    assert Journal(tmp_path).take_left() == [b"lost on the way"]
    loop.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.keep([b"x"])
    assert oct((tmp_path / "journal").stat().st_mode & 0o777) == "0o700"
    assert all(oct(p.stat().st_mode & 0o777) == "0o600" for p in (tmp_path / "journal").iterdir())


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    os.close(journal._segments[0].handle)
    journal._segments[0].handle = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        journal.keep([b"x"])

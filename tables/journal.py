"""What was answered and is still on its way to the log: kept in files until the broker has it.

A kill takes what a process has in memory, not what it has written to a file: whoever starts next on this disk finds
it and sends it. A machine that loses its power loses what its system has not written yet: nothing is synced here, an
answer would wait for the disk.

A file that ends within an entry was cut off there, by a kill or a power cut: that entry was not answered, or is lost
with the machine. Any other file that is not as it was written is refused: what it had was answered, and is not all
known any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import struct
import time
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tables.exit_codes import ExitCode

SEGMENT_BYTES = 4 << 20
#: of an entry: checksum of its value, length of its value
_head = struct.Struct("<II")


class JournalDamaged(RuntimeError):
    """A file of the journal is not what was written: which, and what a person can do."""

    exit_code = ExitCode.DAMAGED


@dataclass
class _Segment:
    path: Path
    handle: int
    size: int = 0
    #: the newest batch of each target: those before it arrive before it
    sent: dict[Hashable, asyncio.Future[Any]] = field(default_factory=dict)

    def arrived(self) -> bool:
        return all(f.done() and not f.cancelled() and f.exception() is None for f in self.sent.values())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.handle)


class Journal:
    """Files of one process in a folder; it holds a lock on each while it lives.

    Parameters
    ----------
    folder : created where it is missing; only its user may read it or write there
    segment_bytes : a file is followed by the next one when it has so many, and removed when all of it has arrived

    Raises
    ------
    PermissionError
        If others own the folder, or may write there: what is found in it is sent as if this user had decided it.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError(f"journal folder {folder}: expected one that only this user may write to")
        self._folder, self._segment_bytes = folder, segment_bytes
        self._left: list[_Segment] = []
        self._segments = [self._open()]

    def _open(self) -> _Segment:
        name = f"{os.getpid()}-{time.monotonic_ns()}"
        made = self._folder / f"{name}.new"
        handle = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        path = made.rename(self._folder / f"{name}.journal")  # nobody sees it without its lock
        return _Segment(path, handle)

    def take_left(self) -> list[bytes]:
        """Return what processes that are gone had kept, oldest first; it is theirs until `forget_left`.

        Raises
        ------
        JournalDamaged
            Some of it is not what was written.
        """
        values: list[bytes] = []
        for path in sorted(self._folder.glob("*.journal"), key=lambda p: int(p.stem.rpartition("-")[2])):
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process lives
                os.close(handle)
                continue
            self._left.append(_Segment(path, handle))
            try:
                values += _entries(path) if os.fstat(handle).st_nlink else []
            except JournalDamaged:
                while self._left:
                    os.close(self._left.pop().handle)
                raise
        return values

    def forget_left(self) -> None:
        """Remove what was left: all of it has arrived."""
        while self._left:
            self._left.pop().remove()

    def keep(self, values: Sequence[bytes]) -> None:
        """Have these in a file; they survive the process from here on.

        Raises
        ------
        OSError
            If they cannot be written, all of them.
        """
        if self._segments[-1].size >= self._segment_bytes:
            self._segments.append(self._open())
            for old in [s for s in self._segments[:-1] if s.arrived()]:
                self._segments.remove(old)
                old.remove()
        data = b"".join(_head.pack(zlib.crc32(v), len(v)) + v for v in values)
        segment = self._segments[-1]
        if os.write(segment.handle, data) != len(data):
            raise OSError(f"{segment.path}: not all of {len(data)} bytes could be written")
        segment.size += len(data)

    def sent(self, target: Hashable, future: asyncio.Future[Any]) -> None:
        """Note with which batch the newest of a target, a partition, goes to the broker."""
        self._segments[-1].sent[target] = future

    def close(self) -> None:
        """Remove what has arrived, and let go of the rest."""
        for segment in self._segments:
            if segment.arrived():
                segment.remove()
            else:
                os.close(segment.handle)
        self._segments.clear()
        with contextlib.suppress(OSError):  # what others left or are using stays
            self._folder.rmdir()


def _entries(path: Path) -> list[bytes]:
    """Return the whole entries; the last one may be cut off."""
    data, found, at = path.read_bytes(), list[bytes](), 0
    while at < len(data):
        end = _end_of(data, at)
        if end is None:
            if _is_cut_off(data, at):
                break
            raise JournalDamaged(
                f"{path}: {len(found)} decisions, then {len(data) - at} bytes from {at} on that are not what was "
                "written: orders were answered that may not be on the log of decisions. Compare it with what the order "
                "systems were told, then move the file away; the gate starts without it")
        found.append(data[at + _head.size : end])
        at = end
    return found


def _end_of(data: bytes, at: int) -> int | None:
    """Return where the entry ends that begins here, or None where none does."""
    if at + _head.size > len(data):
        return None
    checksum, length = _head.unpack_from(data, at)
    end = at + _head.size + int(length)
    return end if length > 0 and end <= len(data) and zlib.crc32(data[at + _head.size : end]) == checksum else None


def _is_cut_off(data: bytes, at: int) -> bool:
    """Whether the entry that begins here is the last one, written up to somewhere: no other one follows it."""
    if not any(data[at:]):  # the file had got its length, and nothing else
        return True
    if at + _head.size <= len(data):
        checksum, length = _head.unpack_from(data, at)
        rest = data[at + _head.size :]
        if length <= len(rest) or zlib.crc32(rest) == checksum:  # all of it is there: its length, or it, was changed
            return False
    return not any(_end_of(data, start) is not None for start in range(at + 1, len(data) - _head.size))

"""What a folder may look like after a kill, a power cut, or with one file harmed: from a recording of how it was written.

Taken down are the names in the folder and the bytes of each file, and what was synced. After a power cut a file has at
least what was synced of it, and of what came later any prefix, with zeros for the rest or not; a name stands for the
file it stood for when its folder was synced, or for any later one, whatever the other names do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

KINDS = ("killed", "power cut", "bit flipped", "cut off", "file gone")


@dataclass
class Moment:
    """The folder at one time: file by name, bytes by file; what is sure to be there after a power cut."""

    names: dict[str, int]
    content: dict[int, bytes]
    sure_names: dict[str, int]
    sure: dict[int, bytes]


@dataclass
class Recording:
    """A folder, recorded while something is written to it."""

    folder: Path
    moments: list[Moment] = field(default_factory=list)
    _sure_names: dict[str, int] = field(default_factory=dict)
    _sure: dict[int, bytes] = field(default_factory=dict)
    _sure_folders: set[Path] = field(default_factory=set)
    #: files by inode; the number of one that is gone is given to the next one
    _files: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def _look(self) -> tuple[dict[str, int], dict[int, bytes]]:
        names, content, inodes = dict[str, int](), dict[int, bytes](), set[int]()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                inode = path.stat().st_ino
                inodes.add(inode)
                if inode not in self._files:
                    self._count += 1
                    self._files[inode] = self._count
                number = self._files[inode]
                names[str(path.relative_to(self.folder))], content[number] = number, path.read_bytes()
        self._files = {inode: number for inode, number in self._files.items() if inode in inodes}
        return names, content

    def note(self) -> None:
        """Take down how the folder is now."""
        names, content = self._look()
        sure = {n: x for n, x in self._sure_names.items() if self._lies_surely(self.folder / n)}
        self.moments.append(Moment(names, content, sure, dict(self._sure)))

    def _lies_surely(self, path: Path) -> bool:
        """Whether the folders that a file lies in would be there after a power cut."""
        return all(each in self._sure_folders for each in path.parents if each.is_relative_to(self.folder) and each != self.folder)

    def _synced(self, handle: int) -> None:
        names, content = self._look()
        path = Path(f"/proc/self/fd/{handle}").resolve()
        if path.is_dir():
            inside = {n: number for n, number in names.items() if (self.folder / n).parent == path}
            self._sure_names = {n: x for n, x in self._sure_names.items() if (self.folder / n).parent != path} | inside
            self._sure_folders |= {each for each in path.iterdir() if each.is_dir()}
        elif (number := self._files.get(os.fstat(handle).st_ino)) is not None:
            self._sure[number] = content[number]

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record what this process syncs and renames."""
        fsync, replace = os.fsync, Path.replace

        def noted_fsync(handle: int) -> None:
            self.note()
            fsync(handle)
            self._synced(handle)
            self.note()

        def noted_replace(path: Path, target: Path) -> Path:
            self.note()
            made = replace(path, target)
            self.note()
            return made

        os.fsync, Path.replace = noted_fsync, noted_replace  # type: ignore[method-assign, assignment]
        try:
            yield self
        finally:
            os.fsync, Path.replace = fsync, replace  # type: ignore[method-assign]

    def state(self, rng: np.random.Generator, kind: str, at: int, into: Path) -> None:
        """Write a state of the folder as it may be found after the moment ``at``."""
        made = {"killed": self._killed, "power cut": self._power_cut}.get(kind, self._harmed(kind))(rng, at)
        for name, data in made.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _killed(self, rng: np.random.Generator, at: int) -> dict[str, bytes]:
        moment = self.moments[at]
        return {name: moment.content[number] for name, number in moment.names.items()}

    def _power_cut(self, rng: np.random.Generator, at: int) -> dict[str, bytes]:
        last = self.moments[at]
        since = next(k for k in range(at + 1) if self.moments[k].sure_names == last.sure_names)
        found: dict[str, bytes] = {}
        for name in sorted({n for m in self.moments[: at + 1] for n in (*m.names, *m.sure_names)}):
            may_be: list[int | None] = [last.sure_names.get(name)]
            may_be += [m.names.get(name) for m in self.moments[since : at + 1]]
            number = last.names.get(name) if rng.random() < 0.6 else may_be[int(rng.integers(len(may_be)))]
            if number is not None:
                found[name] = self._torn(rng, number, at)
        return found

    def _torn(self, rng: np.random.Generator, number: int, at: int) -> bytes:
        """Return what may be left of a file: what is sure of it at least."""
        sure = self.moments[at].sure.get(number, b"")
        versions = [m.content[number] for m in self.moments[: at + 1] if number in m.content]
        data = versions[-1]
        if data.startswith(sure) and len(data) > len(sure) and rng.random() < 0.5:
            cut = int(rng.integers(len(sure), len(data) + 1))
            return data[:cut] + bytes(len(data) - cut) * bool(rng.random() < 0.3)
        if not data.startswith(sure) and rng.random() < 0.5:  # it was written over
            return sure
        return data

    def _harmed(self, kind: str) -> Callable[[np.random.Generator, int], dict[str, bytes]]:
        def harmed(rng: np.random.Generator, at: int) -> dict[str, bytes]:
            found = self._killed(rng, at)
            if not found:
                return found
            name = sorted(found)[int(rng.integers(len(found)))]
            data = found[name]
            if kind == "file gone":
                del found[name]
            elif kind == "cut off":
                found[name] = data[: int(rng.integers(len(data) + 1))]
            elif data:
                k = int(rng.integers(len(data)))
                found[name] = data[:k] + bytes([data[k] ^ 1 << int(rng.integers(8))]) + data[k + 1 :]
            return found
        return harmed

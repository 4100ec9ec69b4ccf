"""Files that are there as a whole or not at all, whatever ends the process or the machine; and whether they still are.

Written under another name, synced, renamed, its folder synced: who reads it finds what was there before or all of the
new. A document has a checksum of all that it says: what was changed since is refused, never read by guess.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"


class Damaged(ValueError):
    """A file is not what was written: which, and what a person can do."""


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place; once this returns it survives a power cut."""
    scratch = path.with_name(f"{path.name}.part")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Have a folder that survives a power cut, and those that it lies in."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def document_of(content: dict[str, Any]) -> bytes:
    """Return a document with its checksum."""
    return json.dumps({CHECKSUM: _checksum(content), **content}, indent=1).encode()


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """Read a document; one of a version before has no checksum, and is taken as it is.

    Parameters
    ----------
    remedy : what a person can do where it is damaged

    Raises
    ------
    Damaged
        It is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise Damaged(f"{path}: expected what was written there, was damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path}: expected an object, was {type(content).__name__}; {remedy}")
    said = content.pop(CHECKSUM, None)
    if said is not None and said != _checksum(content):
        raise Damaged(f"{path}: expected what was written there (checksum {said}), was changed since; {remedy}")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""The one place that says how kernels are compiled: cached on disk, no GIL, no fast-math."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def _cache_of_these_sources() -> None:
    """Keep compiled kernels in a folder named by the sources of all kernels (``NUMBA_CACHE_DIR``, else the home's).

    Numba looks at the file of a kernel alone: one whose helper changed in another file would go on with the old helper.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(here.rglob("*.py")):
        text = source.read_bytes()
        if b"models.jit" in text:
            digest.update(text)
    home = Path(numba.config.CACHE_DIR or Path.home() / ".cache" / "deskrisk" / "numba")
    folder = home / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home: Numba looks for another place by itself
    numba.config.CACHE_DIR = str(folder)


_cache_of_these_sources()


def kernel(function: F) -> F:
    """Compile a kernel once per machine; it runs without the GIL and divides as C does.

    It borrows its columns from the caller and counts no references on them, so it cannot allocate (Numba refuses it
    at compilation): an atomic count for every array at every call took 85 % of the time of a fold.
    """
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)


def inline_kernel(function: F) -> F:
    """Compile a helper that is only called from other kernels."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)


def hot_kernel(function: F) -> F:
    """Compile a helper into its callers: what is passed on for every record costs more than the call itself."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")(function)


def allocating_kernel(function: F) -> F:
    """Compile a kernel that makes arrays of its own; calls of it cost a few atomic operations for every column."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=True)(function)

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
    """Compile a kernel once per machine; it runs without the GIL and divides as C does."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def inline_kernel(function: F) -> F:
    """Compile a helper that is only called from other kernels."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def hot_kernel(function: F) -> F:
    """Compile a helper into its callers.

    A call that passes the columns of a state counts references on every array (about 100 ns): too much per record.
    """
    return njit(cache=True, nogil=True, error_model="numpy", inline="always")(function)

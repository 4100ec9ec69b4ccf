"""The one place that says how kernels are compiled: cached on disk, no GIL, no fast-math."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

from models.kernel_cache import keep_kernels

F = TypeVar("F", bound=Callable[..., Any])


keep_kernels()


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

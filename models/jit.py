"""The one place that says how kernels are compiled: cached on disk, no GIL, no fast-math."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


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

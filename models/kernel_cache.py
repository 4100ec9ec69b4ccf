"""Where compiled kernels lie: under a name of all they were compiled from, so that none is older than what it uses.

Numba looks at the file of a kernel alone. One whose helper changed in another file would go on with the old helper, and
one whose constants are another module's (the columns of the gate's state) with the old constants.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from enum import EnumMeta
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.caching import UserProvidedCacheLocator

PACKAGE = __name__.partition(".")[0]
HOME = Path(__file__).resolve().parent.parent


class KernelLocator(UserProvidedCacheLocator):
    """A folder for each module and state of its sources, whichever checkout or release they lie in."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._folder = Path(numba.config.CACHE_DIR) / py_func.__module__ / stamp_of(py_func.__module__)

    def get_cache_path(self) -> str:
        return str(self._folder)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Any:
        ours = py_func.__module__.partition(".")[0] == PACKAGE
        return super().from_function(py_func, py_file) if ours else None


@functools.cache
def stamp_of(name: str) -> str:
    """Name the state of all that kernels of a module are compiled from: of itself and of the modules it takes from."""
    digest = hashlib.sha256(numba.__version__.encode())
    reached, open_ = {name}, [name]
    while open_:
        found = _takes_from(open_.pop()) - reached
        reached |= found
        open_ += found
    for each in sorted(reached):
        digest.update(_state_of(each, each == name).encode())
    return digest.hexdigest()[:16]


def _takes_from(name: str) -> set[str]:
    """Give the modules of the package that a module has kernels of, or has imported as a whole."""
    values = vars(sys.modules[name]).values()
    found = {v.__name__ if isinstance(v, ModuleType) else v.__module__
             for v in values if isinstance(v, ModuleType) or _is_compiled(v)}
    return {each for each in found if each.startswith(f"{PACKAGE}.")}


def _state_of(name: str, has_kernels: bool) -> str:
    """Give the constants of a module, and its text where it has kernels."""
    module = sys.modules[name]
    constants = {key: _constant(value) for key, value in sorted(vars(module).items()) if not key.startswith("__")}
    has_kernels = has_kernels or any(_is_compiled(v) and v.__module__ == name for v in vars(module).values())
    return repr((name, constants, inspect.getsource(module) if has_kernels else None))


def _is_compiled(value: Any) -> bool:
    return type(value).__module__.startswith("numba.")


def _constant(value: Any) -> Any:
    """Give what Numba would freeze into a kernel: None for what it cannot take."""
    if isinstance(value, EnumMeta):
        return [(m.name, m.value) for m in value]  # type: ignore[var-annotated]
    if isinstance(value, (tuple, list)):
        return [_constant(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return value if isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype)) else None


def keep_kernels() -> None:
    """Have Numba keep kernels in ``NUMBA_CACHE_DIR``, else where `make` compiles those of a checkout, else at home."""
    checkout = (HOME / "pyproject.toml").is_file()
    default = HOME / ".cache" / "numba" if checkout else Path.home() / ".cache" / "deskrisk" / "numba"
    folder = Path(numba.config.CACHE_DIR or default)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home: Numba looks for another place by itself
    numba.config.CACHE_DIR = str(folder)
    numba.config.CACHE_LOCATOR_CLASSES = ",".join([f"{__name__}.{KernelLocator.__name__}", *(
        f"{each}CacheLocator" for each in ("UserProvided", "InTree", "UserWide"))])

"""Where compiled kernels lie: under a name of all they were compiled from, so that none is older than what it uses.

Numba looks at the file of a kernel alone. One whose helper changed in another file would go on with the old helper, and
one whose constants are another module's (the columns of the gate's state) with the old constants.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import EnumMeta
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import caching
from numba.core.caching import IndexDataCacheFile, UserProvidedCacheLocator

PACKAGE = __name__.partition(".")[0]
#: in front of a checksum
SEAL = b"\x00CRC"
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


class CheckedFiles(IndexDataCacheFile):
    """Files of compiled kernels, a checksum behind each: one that was cut off or changed is as if it were not there.

    Numba makes an error of it that ends the process, or runs other machine code.
    """

    def _load_index(self) -> dict[Any, str]:
        try:
            file = BytesIO(_checked(Path(self._index_path).read_bytes()))
            if pickle.load(file) != self._version:
                return {}
            stamp, overloads = pickle.load(file)
        except Exception:  # noqa: BLE001 - unpickling raises whatever it meets
            return {}
        return overloads if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> Any:
        try:
            return pickle.loads(_checked(Path(self._data_path(name)).read_bytes()))
        except Exception as error:
            raise OSError(f"{name}: compiled again ({error})") from error  # as Numba takes a file that is gone

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[BytesIO]:
        buffer = BytesIO()
        yield buffer
        with super()._open_for_write(filepath) as file:
            file.write(buffer.getvalue() + SEAL + zlib.crc32(buffer.getvalue()).to_bytes(4, "big"))


def _checked(data: bytes) -> bytes:
    """Return what was written; what a version before wrote has no checksum."""
    if data[-8:-4] != SEAL:
        return data
    if zlib.crc32(data[:-8]).to_bytes(4, "big") != data[-4:]:
        raise ValueError("its checksum is wrong")
    return data[:-8]


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
    caching.IndexDataCacheFile = CheckedFiles
    numba.config.CACHE_LOCATOR_CLASSES = ",".join([f"{__name__}.{KernelLocator.__name__}", *(
        f"{each}CacheLocator" for each in ("UserProvided", "InTree", "UserWide"))])

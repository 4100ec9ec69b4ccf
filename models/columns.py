"""Growth of column arrays."""

from __future__ import annotations

import numpy as np


def grown(array: np.ndarray, size: int, fill: float = 0) -> np.ndarray:
    """Return a longer copy of a column; what is new holds ``fill`` (zeros for structured columns)."""
    shape = (size, *array.shape[1:])
    out = np.full(shape, fill, array.dtype) if array.dtype.names is None else np.zeros(shape, array.dtype)
    out[: len(array)] = array
    return out

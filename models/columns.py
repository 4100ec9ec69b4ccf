"""Growth of column arrays."""

from __future__ import annotations

import numpy as np


def grown(array: np.ndarray, size: int, fill: int = 0) -> np.ndarray:
    """Return a longer copy of a column; what is new holds ``fill`` (zeros for structured columns)."""
    out = np.full(size, fill, array.dtype) if array.dtype.names is None else np.zeros(size, array.dtype)
    out[: len(array)] = array
    return out

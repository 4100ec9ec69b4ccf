"""What is a figure, and what is none: one bound for sums that are kept up by differences."""

from __future__ import annotations

import numpy as np

from models.jit import inline_kernel

#: no money is near it; sums, differences and squares of what is within it are finite
FIGURE_MAX = 1e100


@inline_kernel
def is_figure(value: float) -> bool:
    """Return whether a value can be counted with: not what is unknown (NaN), infinite, or beyond `FIGURE_MAX`.

    What a sum once took in as infinite cannot be taken back: the rest is NaN, whatever was right beside it.
    """
    return abs(value) <= FIGURE_MAX


def known_figures(values: np.ndarray) -> np.ndarray:
    """Return values with NaN in the place of what is no figure."""
    return np.where(np.abs(values) <= FIGURE_MAX, values, np.nan)

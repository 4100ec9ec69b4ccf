"""What nodes have in others that cut across the tree: a fund in an issuer, a desk in a sector."""

from __future__ import annotations

import numpy as np

from models import rollup as ru
from models.jit import kernel
from models.rollup import RollUp

#: limits of a node on what it has in any one issuer, or in any one sector, as a share of its NAV
SHARE_METRICS = {"concentration": "issuer:", "sector_concentration": "sector:"}


@kernel
def sums_of_shares(contribution: np.ndarray, metric: int, ancestors: np.ndarray, count: int, above_of: np.ndarray,
                    within_of: np.ndarray, share_of: np.ndarray, out: np.ndarray) -> None:
    """Sum up what nodes have in others.

    Parameters
    ----------
    above_of, within_of : by node of the roll-up, its row or its column in ``share_of``; -1: neither
    share_of : the place in ``out`` of a row and a column; -1: not asked for
    """
    out[:] = 0.0
    for r in range(count):
        part = contribution[r, metric]
        if part == 0.0:
            continue
        for a in ancestors[r]:
            if a >= 0 and above_of[a] >= 0:
                for b in ancestors[r]:
                    if b >= 0 and within_of[b] >= 0 and share_of[above_of[a], within_of[b]] >= 0:
                        out[share_of[above_of[a], within_of[b]]] += part


def shares_of(rollup: RollUp, above: list[str], within: list[str], share_of: np.ndarray, count: int,
              metric: int = ru.GROSS) -> np.ndarray:
    """Return float64[count]: the gross, or another figure, of ``above`` in ``within`` at the places of ``share_of``."""
    above_of, within_of = np.full((2, max(len(rollup.node_names), 1)), -1)
    for names, places in ((above, above_of), (within, within_of)):
        for j, name in enumerate(names):
            k = rollup.node_index.get(name)
            if k is not None:
                places[k] = j
    sums = np.zeros(count)
    sums_of_shares(rollup.contribution, metric, rollup.ancestors, rollup.count, above_of, within_of, share_of, sums)
    return sums

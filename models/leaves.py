"""Sets of nodes that rows lie under: rows with the same ones share a leaf, whose sums are carried up once for all."""

from __future__ import annotations

import numpy as np

from models.columns import grown
from models.jit import kernel


class Leaves:
    """Leaves by the nodes above them.

    Parameters
    ----------
    depth : nodes above a leaf; -1: none
    metrics : figures that are summed
    """

    def __init__(self, depth: int, metrics: int) -> None:
        self.count = 0
        self._nodes = np.full((256, depth), -1, np.int32)
        self._index: dict[tuple[int, ...], int] = {}
        #: what is to be added to the nodes above: zero between calls of `carry_up`
        self.sums = np.zeros((256, metrics))
        self.changed = np.zeros(256, np.uint8)

    @property
    def nodes(self) -> np.ndarray:
        """int32[leaves, depth]."""
        return self._nodes[: self.count]

    def of(self, nodes: tuple[int, ...]) -> int:
        """Return the leaf under these nodes, opening it."""
        leaf = self._index.get(nodes)
        if leaf is None:
            leaf = self._index[nodes] = self.count
            if leaf == len(self._nodes):
                self._nodes = grown(self._nodes, 2 * leaf, -1)
                self.sums, self.changed = grown(self.sums, 2 * leaf), grown(self.changed, 2 * leaf)
            self._nodes[leaf] = nodes
            self.count += 1
        return leaf

    def carry_up(self, nodes: np.ndarray, touched: np.ndarray) -> None:
        """Add what has been summed to the nodes above, and mark them; the sums are zero again."""
        _carry_up(self.nodes, self.sums, self.changed, nodes, touched)


@kernel
def _carry_up(above: np.ndarray, sums: np.ndarray, changed: np.ndarray, nodes: np.ndarray, touched: np.ndarray) -> None:
    for leaf in range(above.shape[0]):
        if changed[leaf] == 0:
            continue
        changed[leaf] = 0
        for k in range(above.shape[1]):
            node = above[leaf, k]
            if node >= 0:
                touched[node] = 1
                for m in range(sums.shape[1]):
                    nodes[node, m] += sums[leaf, m]
        sums[leaf] = 0.0

"""Attribution: which instruments make most of every metric of every node."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.risk.node_cells import Held
from models.risk.option_grid import largest


def top_contributors(metrics: dict[str, np.ndarray], held: Held, labels: list[str], scales: np.ndarray,
                     top: int) -> list[dict[str, list[dict[str, Any]]]]:
    """Return the largest contributors of every metric, the largest first, of every node.

    Parameters
    ----------
    metrics : by name, float64[held], what every held instrument adds to its node, in the firm's base currency
    labels : by instrument
    scales : by node, its own currency for one of the firm's
    """
    out: list[dict[str, list[dict[str, Any]]]] = [{} for _ in scales]
    label_of: Any = np.array([*labels, ""], object)
    column = np.append(held.columns, len(labels))
    for metric, values in metrics.items():
        best: Any = np.empty((len(scales), top), np.int64)
        totals: Any = np.empty(len(scales))
        largest(values, held, top, best, totals)
        found: Any = np.append(values, 0.0)[best]  # -1: there is nothing
        whole = totals != 0.0
        shares: Any = found / np.where(whole, totals, 1.0)[:, None]
        entries = [{"id": label, "label": label, "value": value, "share": share if known else None}
                   for label, value, share, known in zip(
                       label_of[column[best]].ravel().tolist(), (found * scales[:, None]).ravel().tolist(),
                       shares.ravel().tolist(), np.repeat(whole, top).tolist(), strict=True)]
        counts = np.count_nonzero(found, axis=1).tolist()  # zeros come last
        for k, count in enumerate(counts):
            out[k][metric] = entries[k * top : k * top + count]
    return out

"""Attribution: which instruments make most of every metric of every node, and what each made the day before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from models.risk.node_cells import Held
from models.risk.option_grid import largest

Top = dict[str, list[dict[str, Any]]]

#: ends the keys of a day: whatever is looked up lies before it
END = np.iinfo(np.int64).max


class Day(NamedTuple):
    """Contributions as they stood last on a day: (place, instrument) ascending, and each metric in this order."""

    place: dict[str, int]
    keys: np.ndarray
    metrics: dict[str, np.ndarray]
    scales: np.ndarray


class Contributors:
    """The largest contributors of nodes, beside what they contributed at the end of the day before."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._latest: Day | None = None
        self._prior: Day | None = None
        #: what records of the worker before said, by node, metric and instrument: of the day before, of the day itself
        self._said: dict[tuple[str, str, str], float | None] = {}
        self._said_now: dict[tuple[str, str, str], float | None] = {}

    def of(self, metrics: dict[str, np.ndarray], held: Held, labels: list[str], scales: np.ndarray,
           names: list[str]) -> list[Top]:
        """Return the largest contributors of every metric, the largest first, of every node.

        Parameters
        ----------
        metrics : by name, float64[held], what every held instrument adds to its node, in the firm's base currency
        labels : by instrument
        scales, names : by node, its own currency for one of the firm's, and its name
        """
        out: list[Top] = [{} for _ in names]
        label_of: Any = np.array([*labels, ""], object)
        column = np.append(held.columns, len(labels)).astype(np.int64)
        before = self._day_before(names)
        for metric, values in metrics.items():
            best: Any = np.empty((len(names), self._top), np.int64)
            totals: Any = np.empty(len(names))
            largest(values, held, self._top, best, totals)
            found: Any = np.append(values, 0.0)[best]  # -1: there is nothing
            whole = totals != 0.0
            shares: Any = found / np.where(whole, totals, 1.0)[:, None]
            who = label_of[column[best]].ravel().tolist()
            entries = [{"id": label, "label": label, "value": value, "share": share if known else None,
                        "prior_day": prior}
                       for label, value, share, known, prior in zip(
                           who, (found * scales[:, None]).ravel().tolist(), shares.ravel().tolist(),
                           np.repeat(whole, self._top).tolist(), before(metric, column[best], who),
                           strict=True)]
            for k, count in enumerate(np.count_nonzero(found, axis=1).tolist()):  # zeros come last
                out[k][metric] = entries[k * self._top : k * self._top + count]
        places = np.repeat(np.arange(len(names)), np.diff(held.start))
        self._latest = Day({name: k for k, name in enumerate(names)}, (places << 32) + held.columns, metrics, scales)
        return out

    def _day_before(self, names: list[str]) -> Callable[[str, np.ndarray, list[str]], list[float | None]]:
        """Return who says what instruments contributed the day before, in the nodes' currency; None: unknown."""
        prior, said, top = self._prior, self._said, self._top
        place = np.array([-1 if prior is None else prior.place.get(name, -1) for name in names], np.int64)

        def before(metric: str, column: np.ndarray, who: list[str]) -> list[float | None]:
            values: list[float | None] = [None] * len(who)
            unseen = np.ones(len(names), bool)
            if prior is not None and metric in prior.metrics:
                keys = (place << 32)[:, None] + column
                at = np.searchsorted(prior.keys, keys)
                found = np.where(prior.keys[at] == keys, prior.metrics[metric][at], 0.0)
                values, unseen = (found * prior.scales[place][:, None]).ravel().tolist(), place < 0
            for k in np.flatnonzero(np.repeat(unseen, top)).tolist():  # another worker's then: its records tell
                values[k] = said.get((names[k // top], metric, who[k]))
            return values

        return before

    def new_day(self) -> None:
        """Freeze what stood last."""
        if self._latest is not None:
            metrics = {name: np.append(values, 0.0) for name, values in self._latest.metrics.items()}
            self._prior = self._latest._replace(keys=np.append(self._latest.keys, END), metrics=metrics)
            self._said = {}
        else:
            self._said = self._said_now
        self._said_now = {}

    def resume(self, name: str, top: Top) -> None:
        """Take in what the worker before said of a node; what this one saw of it until now is a part."""
        for day in (self._prior, self._latest):
            if day is not None:
                day.place.pop(name, None)
        for metric, entries in top.items():
            for entry in entries:
                key = name, metric, str(entry["id"])
                self._said[key], self._said_now[key] = entry.get("prior_day"), entry["value"]

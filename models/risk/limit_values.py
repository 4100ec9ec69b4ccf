"""Figures of nodes as limits are held against them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from models import rollup as ru
from models.node_shares import SHARE_METRICS, shares_of
from models.reference import FIRM
from models.risk.live import RiskModels
from models.risk.margin import usage

MARGIN_METRICS = frozenset({"margin", "margin_maintenance", "margin_usage"})
#: what is counted is known
COUNTS = frozenset({"stale_positions", "unpriced_positions"})
#: figures that leave out what another one does
_RESTS_ON = dict.fromkeys(("leverage", "margin", "margin_maintenance", *SHARE_METRICS), "gross") | {
    "margin_usage": "total"}


#: figures of a node that are sums of its positions'
SUM_METRICS = frozenset({"gross", "net", "long", "short", *ru.GREEKS, "stale_positions", "unpriced_positions",
                         "loss_total", "loss_day", "credit"})


def sum_values(name: str, sums: np.ndarray) -> dict[str, float]:
    """Return the figures of a node that are sums of its positions' (a row of `Rollup.nodes`)."""
    out = {metric: float(sums[getattr(ru, metric.upper())])
           for metric in ("gross", "net", "long", "short", *ru.GREEKS)}
    out |= {"stale_positions": float(sums[ru.STALE]), "unpriced_positions": float(sums[ru.UNPRICED]),
            "loss_total": -float(ru.total_pnl(sums)), "loss_day": -float(sums[ru.DAY])}
    if not name.startswith("venue:"):  # what is there is the gate's to say
        out["credit"] = out["gross"]
    return out


def limit_values(models: RiskModels, names: set[str], metrics: AbstractSet[str] = frozenset(),
                 ) -> dict[tuple[str, str], float]:
    """Return every figure of some nodes that a limit can be on, in the firm's base currency.

    Losses are positive; what a missing model leaves unknown is not there. Of a node with unpriced positions it is
    what is known (see `unknown_figures`).

    Parameters
    ----------
    metrics : which of margin and shares, that take a pass over all positions, are asked for
    """
    out: dict[tuple[str, str], float] = {}
    rollup = models.book.rollup
    for name in names:
        node = rollup.node_index.get(name)
        if node is None:
            continue
        out |= {(name, metric): value for metric, value in sum_values(name, rollup.nodes[node]).items()}
        s = models.scenarios
        if s is not None and s.snapshot_id and node < len(s.var):
            var, es = s.tail_of(node)
            out[name, "var_hist"] = float(var[s.level_index(0.99)])
            out[name, "es_hist"] = float(es[s.level_index(0.975)])
        latest = models.latest.get(name, {})
        if "leverage" in latest:
            out[name, "leverage"] = latest["leverage"]
        if "var_mc" in latest:  # stated in the node's own currency
            out[name, "var_mc"] = latest["var_mc"] / models.book.scale_of(node)
        if name in models.without_capital:
            out[name, "leverage"] = math.inf
        drawdown = models.drawdowns.states
        if node < len(drawdown) and drawdown[node, 7]:
            out[name, "drawdown"] = -float(drawdown[node, 6])
    if metrics & (MARGIN_METRICS | SHARE_METRICS.keys()):
        out |= _of_positions(models, names, metrics)
    return out


def _of_positions(models: RiskModels, names: set[str], metrics: AbstractSet[str]) -> dict[tuple[str, str], float]:
    """Return margin, and the largest shares of issuers and sectors, of nodes; what is not known is NaN."""
    book, rollup, out = models.book, models.book.rollup, dict[tuple[str, str], float]()
    names = names & rollup.node_index.keys()
    known = {name: nav for name, nav in models.navs(names | {FIRM}).items() if nav > 0.0}
    navs = dict.fromkeys(names | {FIRM}, math.nan) | known
    if metrics & MARGIN_METRICS:
        margins = models.margins.of(book)
        for name in names:
            node = rollup.node_index[name]
            initial, maintenance = margins[node].tolist()
            pnl = float(ru.total_pnl(rollup.nodes[node]))
            out |= {(name, "margin"): initial, (name, "margin_maintenance"): maintenance,
                    (name, "margin_usage"): usage(maintenance, navs[name], pnl)}
    groups = {name for name in names if name.startswith(("issuer:", "sector:"))}
    for metric in metrics & SHARE_METRICS.keys():
        prefix, above = SHARE_METRICS[metric], sorted(names - groups)
        within = [name for name in rollup.node_names if name.startswith(prefix)]
        places = np.arange(len(above) * len(within)).reshape(len(above), len(within))
        gross = shares_of(rollup, above, within, places, places.size).reshape(places.shape)
        for name, largest in zip(above, gross.max(axis=1, initial=0.0).tolist(), strict=True):
            out[name, metric] = largest / navs[name]
    for name in groups if "concentration" in metrics else ():  # the firm's share in it
        out[name, "concentration"] = float(rollup.nodes[rollup.node_index[name], ru.GROSS]) / navs[FIRM]
    return out


def left_out_of(metric: str, sums: np.ndarray) -> int:
    """Return how many positions of a node (a row of `RollUp.nodes`) a figure that limits are on leaves out."""
    if metric in COUNTS:
        return 0
    missing = ru.left_out(_RESTS_ON.get(metric, metric), sums)
    return max(missing, round(float(sums[ru.CARRY_UNKNOWN]))) if metric == "loss_total" else missing


def unknown_figures(models: RiskModels, asked: Iterable[tuple[str, str]], values: Mapping[tuple[str, str], float],
                    ) -> dict[tuple[str, str], str]:
    """Return why figures of nodes are not known, or leave positions out; in words, empty where they are whole.

    A node without positions has nothing that could be unknown.

    Parameters
    ----------
    asked : nodes and metrics
    values : of `limit_values`
    """
    rollup, s, out = models.book.rollup, models.scenarios, dict[tuple[str, str], str]()
    for name, metric in asked:
        node, why = rollup.node_index.get(name), ""
        if node is not None:
            sums = rollup.nodes[node]
            missing = left_out_of(metric, sums)
            if metric in ("var_hist", "es_hist") and s is not None and node < len(s.missing):
                missing = max(missing, int(s.missing[node]))
            value = values.get((name, metric), math.nan)
            if missing:
                why = f"partial: leaves out {missing} positions whose part of it is unknown"
            elif value != value and sums[ru.POSITIONS]:
                why = "unknown: an input of it (a rate, a NAV, a history, a term) is missing"
        out[name, metric] = why
    return out

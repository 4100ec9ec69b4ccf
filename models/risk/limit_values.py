"""Figures of nodes as limits are held against them."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet

import numpy as np

from models import rollup as ru
from models.node_shares import SHARE_METRICS, shares_of
from models.reference import FIRM
from models.risk.live import RiskModels
from models.risk.margin import usage

MARGIN_METRICS = frozenset({"margin", "margin_maintenance", "margin_usage"})


def sum_values(name: str, sums: np.ndarray) -> dict[str, float]:
    """Return the figures of a node that are sums of its positions' (a row of `Rollup.nodes`)."""
    out = {metric: float(sums[getattr(ru, metric.upper())])
           for metric in ("gross", "net", "long", "short", "delta", "gamma", "vega", "theta", "rho")}
    out |= {"stale_positions": float(sums[ru.STALE]), "unpriced_positions": float(sums[ru.UNPRICED]),
            "loss_total": -float(ru.total_pnl(sums)), "loss_day": -float(sums[ru.DAY])}
    if not name.startswith("venue:"):  # what is there is the gate's to say
        out["credit"] = out["gross"]
    return out


def limit_values(models: RiskModels, names: set[str], metrics: AbstractSet[str] = frozenset(),
                 ) -> dict[tuple[str, str], float]:
    """Return every figure of some nodes that a limit can be on, in the firm's base currency.

    Losses are positive; what a missing model leaves unknown is not there. Of a node with unpriced positions it is
    what is known (see `partial_nodes`).

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
            out[name, "var_mc"] = latest["var_mc"] / models.scale_of(node)
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


def partial_nodes(models: RiskModels, names: set[str]) -> set[str]:
    """Return those nodes whose figures leave positions out."""
    rollup, s = models.book.rollup, models.scenarios
    found = {n: rollup.node_index[n] for n in names if n in rollup.node_index}
    return {n for n, k in found.items() if rollup.nodes[k, ru.UNPRICED] or rollup.nodes[k, ru.DAY_UNKNOWN]
            or rollup.nodes[k, ru.NO_GREEKS] or (s is not None and k < len(s.missing) and s.missing[k])}

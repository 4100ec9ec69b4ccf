"""Figures of nodes as limits are held against them."""

from __future__ import annotations

from models import rollup as ru
from models.risk.live import RiskModels


def limit_values(models: RiskModels, names: set[str]) -> dict[tuple[str, str], float]:
    """Return every figure of some nodes that a limit can be on, in the firm's base currency.

    Losses are positive; what a missing model leaves unknown is not there. Of a node with unpriced positions it is
    what is known (see `partial_nodes`).
    """
    out: dict[tuple[str, str], float] = {}
    rollup = models.book.rollup
    for name in names:
        node = rollup.node_index.get(name)
        if node is None:
            continue
        sums = rollup.nodes[node]
        for metric in ("gross", "net", "long", "short", "delta", "gamma", "vega", "theta", "rho"):
            out[name, metric] = float(sums[getattr(ru, metric.upper())])
        out[name, "stale_positions"], out[name, "unpriced_positions"] = float(sums[ru.STALE]), float(sums[ru.UNPRICED])
        out[name, "loss_total"] = -float(ru.total_pnl(sums))
        out[name, "loss_day"] = -float(sums[ru.DAY])
        s = models.scenarios
        if s is not None and s.snapshot_id and node < len(s.var):
            var, es = s.tail_of(node)
            out[name, "var_hist"] = float(var[s.level_index(0.99)])
            out[name, "es_hist"] = float(es[s.level_index(0.975)])
        for metric in ("leverage", "drawdown", "var_mc"):
            if metric in models.latest.get(name, {}):
                out[name, metric] = models.latest[name][metric]
        if node < len(models.drawdown) and models.drawdown[node, 7]:
            out[name, "drawdown"] = -float(models.drawdown[node, 6])
    return out


def partial_nodes(models: RiskModels, names: set[str]) -> set[str]:
    """Return those nodes whose figures leave positions out."""
    rollup, s = models.book.rollup, models.scenarios
    found = {n: rollup.node_index[n] for n in names if n in rollup.node_index}
    return {n for n, k in found.items() if rollup.nodes[k, ru.UNPRICED] or rollup.nodes[k, ru.DAY_UNKNOWN]
            or rollup.nodes[k, ru.NO_GREEKS] or (s is not None and k < len(s.missing) and s.missing[k])}

"""Eight risk models on one snapshot: every node of the tree measured together, each number with what it left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import rollup as ru
from models.contracts import Contracts
from models.reference import FIRM
from models.risk import exposure, factor, monte_carlo, stress
from models.risk.attributes import attributes_of, concentrations_of, navs_of
from models.risk.factor_set import PATHS, SEED, FactorSet, build_factors
from models.risk.node_cells import CELL, CELL_METRICS, cells
from models.risk.option_grid import add_paths, gamma_grid, largest, places
from models.risk.performance import update_drawdown
from models.risk.pnl_explain import PnlExplain
from models.risk.quantile import age_weights, weighted_tail
from models.risk.scenarios import LEVELS, History, ScenarioBook
from models.risk.stress import Scenario
from models.valued_book import ValuedBook

TOP = 5
AGE_DECAY = 0.99
#: an option's P&L beyond its delta, tabulated over these moves of its underlying
SPOT_MOVES = np.linspace(-0.4, 0.4, 33)
DAY_NS = 86_400_000_000_000
Tops = dict[str, tuple[list[list[int]], list[list[float]], list[float]]]


@dataclass
class ModelRun:
    """All models of one snapshot, by node name."""

    snapshot_id: int
    as_of_ns: int
    models: dict[str, dict[str, Any]]
    top: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, float]]


class RiskModels:
    """The eight models over a valued book; one call measures the whole tree on the market as it stands."""

    def __init__(self, book: ValuedBook, contracts: Contracts, history: History | None, groupings: int,
                 participation: float = 0.20) -> None:
        self.book, self.contracts, self.participation = book, contracts, participation
        self.scenarios = None if history is None else ScenarioBook(book, contracts, history, groupings)
        self._groupings = groupings
        self._factors: FactorSet | None = None
        self._factors_version = -1
        self.drawdown = np.zeros((256, 8))
        self.prior: dict[str, dict[str, float]] = {}
        self.latest: dict[str, dict[str, float]] = {}
        self._day = -1
        self._grid = np.zeros((0, 0, 0))
        self._chain_leaves = 0
        self._chain = np.zeros((0, 1), np.int64)
        self._place_of = np.zeros(0, np.int64)
        self.explain = PnlExplain()
        self._shocked: ScenarioBook | None = None
        self._shocked_version = -1
        self._held_drawdown: dict[str, np.ndarray] = {}
        self.stress_scenarios: Sequence[Scenario] = stress.DEFAULTS
        self._specific_draw = np.random.Generator(np.random.PCG64(SEED + 1)).standard_normal(PATHS)

    # ---- one run --------------------------------------------------------------------------------------------------
    def run(self, now_ns: int) -> ModelRun:
        """Measure every node of the tree; the caller has valued the book on the same snapshot."""
        book, rollup = self.book, self.book.rollup
        summary = self._summary_nodes()
        self._place_of = np.full(len(rollup.nodes), -1, np.int64)
        self._place_of[summary] = np.arange(len(summary))
        instruments = len(book.market.instruments)
        shape = (len(CELL), len(summary), max(instruments, 1))
        if self._grid.shape != shape:
            self._grid = np.zeros(shape)
        grid = self._grid
        cells(rollup.count, rollup.rows, rollup.contribution, rollup.ancestors, self._place_of, CELL_METRICS,
              self._chains(), grid)
        if self.scenarios is not None:
            self.scenarios.fill_units()
            self.scenarios.rebuild()
        self._roll_day(now_ns)
        if not len(summary):
            return ModelRun(book.snapshot_id, now_ns, {}, {}, {})
        self._explain(summary, names_of(rollup, summary), grid[0], now_ns)
        shocked = self._stressed()
        factors, quality = self._factor_exposures(grid)
        simulated = self._monte_carlo(grid, quality)
        names = names_of(rollup, summary)
        navs = navs_of(book)
        self._drawdowns(summary, names, navs, now_ns)
        attributes = attributes_of(book, instruments)
        run = ModelRun(book.snapshot_id, now_ns, {}, {}, {})
        labels = list(book.market.instruments)
        tops = self._tops(summary, grid)
        horizon_es = self._horizon_es(grid[0], attributes["horizon"])
        concentrations = concentrations_of(grid[1], attributes, TOP)
        for place, node in enumerate(summary.tolist()):
            name = names[place]
            scale = self._scale(node)
            cell = grid[:, place]
            models = {"var_hist": self._historical(node, scale), "var_mc": simulated(place, scale),
                      "greeks": self._greeks(node, scale, cell, attributes), "factor": factors(place, scale),
                      "liquidity": self._liquidity(node, cell, attributes, scale, horizon_es[place]),
                      "concentration": concentrations[place],
                      "leverage": self._leverage(cell, attributes, navs.get(name), scale),
                      "drawdown": self._drawdown(node)}
            models["stress"] = {x.name: float(shocked.vectors[node, k]) * scale
                                for k, x in enumerate(self.stress_scenarios)} | {
                                    "missing": int(shocked.missing[node])}
            models["pnl_explain"] = self.explain.of(name, scale) or {"quality": "missing", "why": "one snapshot so far"}
            run.models[name] = models
            run.top[name] = self._top(place, tops, labels, scale)
            run.metrics[name] = models["metrics"] = self._metrics(node, models, scale)
        self.latest = run.metrics
        return run

    def update_rows(self, which: np.ndarray) -> np.ndarray:
        """Bring historical VaR up to date after trades; return the nodes measured."""
        if self.scenarios is None or not self.scenarios.snapshot_id:
            return np.zeros(0, np.int64)
        self.scenarios.update(which)
        return np.unique(self.book.rollup.ancestors[which])

    def _explain(self, summary: np.ndarray, names: list[str], quantity: np.ndarray, now_ns: int) -> None:
        s, nodes = self.scenarios, self.book.rollup.nodes[summary]
        if s is not None:
            totals = nodes[:, ru.REALISED] + nodes[:, ru.UNREALISED] - nodes[:, ru.FEES]
            self.explain.observe(names, quantity, totals, self.book.market, self.contracts, s.columns, now_ns)

    def _stressed(self) -> ScenarioBook:
        """Return the stress vectors on the market as it stands; scenarios are looked up when reference data change."""
        if self._shocked is None or self._shocked_version != self.book.reference.version:
            past = self.scenarios.history if self.scenarios is not None else None
            moves = stress.stress_history(self.book, self.stress_scenarios, past)
            self._shocked = ScenarioBook(self.book, self.contracts, moves, self._groupings)
            self._shocked_version = self.book.reference.version
        self._shocked.fill_units()
        self._shocked.rebuild()
        return self._shocked

    def quick(self, node: int) -> dict[str, Any] | None:
        """Return what is exact after every trade: historical VaR and ES of a node; None before the first run."""
        s = self.scenarios
        if s is None or not s.snapshot_id or node >= len(s.var):
            return None
        return {"var_hist": self._historical(node, self._scale(node), False)}

    def _summary_nodes(self) -> np.ndarray:
        prefixes = tuple(f"{level}:" for level in self.book.levels if level != FIRM)
        return np.array([k for k, n in enumerate(self.book.rollup.node_names) if n == FIRM or n.startswith(prefixes)],
                        np.int64)

    def _scale(self, node: int) -> float:
        currency = self.book.currency_of(node)
        market = self.book.market
        return 1.0 / float(market.rate[market.currency(currency)])

    # ---- historical -----------------------------------------------------------------------------------------------
    def _historical(self, node: int, scale: float, aged_too: bool = True) -> dict[str, Any]:
        s = self.scenarios
        if s is None or s.days == 0:
            return {"quality": "missing", "why": "no history loaded"}
        out: dict[str, Any] = {"n": s.days, "horizon_days": 1, "quantile": "default", "missing": int(s.missing[node])}
        for k, level in enumerate(LEVELS):
            text = _percent(level)
            out[f"var_{text}"], out[f"es_{text}"] = float(s.var[node, k]) * scale, float(s.es[node, k]) * scale
        if aged_too:
            aged = weighted_tail(s.vectors[node], age_weights(s.days, AGE_DECAY)[::-1], 0.99)
            out |= {"var_99_aged": aged[0] * scale, "es_99_aged": aged[1] * scale, "age_decay": AGE_DECAY}
        out["quality"] = "partial" if s.missing[node] else "good"
        return out

    # ---- factors and Monte Carlo ----------------------------------------------------------------------------------
    def _loadings(self, instruments: int) -> tuple[np.ndarray, np.ndarray]:
        """Return loadings and specific variance by instrument, through the underlying where there is one."""
        fs = self._factors
        assert fs is not None
        width = len(fs.names)
        out, specific = np.full((instruments, width), np.nan), np.full(instruments, np.nan)
        for name, k in self.book.market.instruments.items():
            record = self.book.reference.instrument_records.get(name)
            under = record.underlying if record else None
            source = name if name in fs.loadings and not (record and record.right) else under
            if source in fs.loadings:
                out[k], specific[k] = fs.loadings[source], fs.specific[source]
        return out, specific

    def _factor_exposures(self, grid: np.ndarray) -> tuple[Any, list[str]]:
        s = self.scenarios
        if s is None:
            return lambda place, scale: {"quality": "missing", "why": "no history loaded"}, []
        if self._factors is None or self._factors_version != self.book.reference.version:
            self._factors = build_factors(self.book, s.history)
            self._factors_version = self.book.reference.version
            self._loaded = self._loadings(grid.shape[2])
        if len(self._loaded[0]) != grid.shape[2]:
            self._loaded = self._loadings(grid.shape[2])
        loadings, specific = self._loaded
        delta = grid[CELL.index("delta")]
        known = np.isfinite(loadings).all(axis=1) if loadings.size else np.zeros(grid.shape[2], bool)
        self.node_exposures = delta[:, known] @ loadings[known]
        self.node_specific = (delta[:, known] ** 2) @ specific[known]
        without = (np.abs(delta[:, ~known]) > 0).sum(axis=1)
        names, covariance = self._factors.names, self._factors.covariance
        quality = ["partial" if n else "good" for n in without.tolist()]

        def one(place: int, scale: float) -> dict[str, Any]:
            found = factor.decompose(self.node_exposures[place], covariance, float(self.node_specific[place]))
            order = np.argsort(-np.abs(found["contribution"]))[:12]
            return {"volatility": found["volatility"] * scale, "specific": found["specific"] * scale,
                    "contribution": {names[j]: float(found["contribution"][j]) * scale for j in order},
                    "exposure": {names[j]: float(self.node_exposures[place, j]) * scale for j in order},
                    "missing": int(without[place]), "quality": quality[place]}

        return one, quality

    def _monte_carlo(self, grid: np.ndarray, quality: Any) -> Any:
        fs = self._factors
        if self.scenarios is None or fs is None or not fs.names:
            return lambda place, scale: {"quality": "missing", "why": "no history loaded"}
        pnl = self.node_exposures @ fs.draws.T
        pnl += np.sqrt(self.node_specific)[:, None] * self._specific_draw
        pnl += self._option_paths(grid)
        worst = np.empty((len(pnl), monte_carlo.tail_size(PATHS, 0.99)))
        monte_carlo.path_tails(pnl, worst.shape[1], worst)

        def one(place: int, scale: float) -> dict[str, Any]:
            found = monte_carlo.tail_summary(worst[place], PATHS, 0.99)
            return {"var_99": found["var"] * scale, "es_99": found["es"] * scale,
                    "standard_error": found["standard_error"] * scale, "paths": PATHS, "seed": SEED,
                    "factors": len(fs.names), "quality": quality[place]}

        return one

    def _option_paths(self, grid: np.ndarray) -> np.ndarray:
        """Return what options earn beyond their delta on every path, by node: full revaluation on a grid of moves.

        Books are simulated; what lies above is the sum of its books.
        """
        fs, options, market, s = self._factors, self.contracts.options, self.book.market, self.scenarios
        out = np.zeros((grid.shape[1], PATHS))
        if fs is None or s is None or not len(options):
            return out
        table = gamma_grid(options, self.contracts.tables, market.price, SPOT_MOVES)
        size = s.columns["unit"][options["instrument"]] * market.rate[s.columns["currency"][options["instrument"]]]
        table = np.nan_to_num(table * size[:, None])
        chains = self._chains()
        books = np.unique(chains[:, 0])
        quantity = np.zeros((grid.shape[1], len(options)))
        quantity[books] = grid[0][books][:, options["instrument"]]
        names = {k: n for n, k in market.instruments.items()}
        for under in np.unique(options["underlying"]).tolist():
            mine = options["underlying"] == under
            by_node = quantity[:, mine] @ table[mine]
            nodes = np.flatnonzero(np.abs(by_node).max(axis=1) > 0.0)
            if names[under] in fs.loadings and len(nodes):
                add_paths(nodes, by_node, *self._places(names[under]), out)
        for book, *above in chains.tolist():
            for node in above:
                if node >= 0 and node != book:
                    out[node] += out[book]
        return out

    def _places(self, underlying: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where an underlying's simulated moves lie on the grid; they only change with the factors."""
        fs = self._factors
        assert fs is not None
        if underlying not in fs.places:
            moves = (fs.draws @ fs.loadings[underlying]
                     + math.sqrt(max(fs.specific[underlying], 0.0)) * self._specific_draw)
            fs.places[underlying] = places(moves, SPOT_MOVES)
        return fs.places[underlying]

    def _chains(self) -> np.ndarray:
        """Return the place of every book and of the nodes above it: int64[books, levels]."""
        leaves = self.book.rollup.leaf_nodes
        if self._chain_leaves != len(leaves):
            self._chain = np.unique(np.array(leaves)[:, : len(self.book.levels)], axis=0)
            self._chain_leaves = len(leaves)
        found = np.where(self._chain >= 0, self._place_of[self._chain], -1)
        return np.asarray(found[found[:, 0] >= 0])

    # ---- the others -----------------------------------------------------------------------------------------------
    def _greeks(self, node: int, scale: float, cell: np.ndarray, a: dict[str, Any]) -> dict[str, Any]:
        sums = self.book.rollup.nodes[node]
        out: dict[str, Any] = {g: float(sums[ru.DELTA + k]) * scale for k, g in enumerate(ru.GREEKS)}
        missing = round(float(sums[ru.NO_GREEKS]))
        of_option = a["expiry"] >= 0
        ladder = {label: {"gamma": float(cell[CELL.index("gamma"), of_option & (a["expiry"] == k)].sum()) * scale,
                          "vega": float(cell[CELL.index("vega"), of_option & (a["expiry"] == k)].sum()) * scale}
                  for label, k in sorted(a["labels"]["expiry"].items())}
        return out | {"by_expiry": ladder, "missing": missing, "sticky": "strike",
                      "quality": "partial" if missing else "good"}

    def _liquidity(self, node: int, cell: np.ndarray, a: dict[str, Any], scale: float,
                   horizon_es: float) -> dict[str, Any]:
        quantity, net = cell[0], cell[1]
        held = quantity != 0.0
        days = exposure.days_to_liquidate(quantity[held], a["adv"][held], self.participation)
        cost = exposure.liquidity_cost(net[held], a["spread"][held])
        unknown = int(np.isnan(days).sum() + np.isnan(a["spread"][held]).sum())
        out: dict[str, Any] = {
            "participation": self.participation, "buckets": exposure.liquidity_buckets(net[held], days),
            "days_max": float(np.nanmax(days)) if np.isfinite(days).any() else None, "cost": cost * scale,
            "missing": unknown, "quality": "partial" if unknown else "good"}
        if self.scenarios is not None:
            k = self.scenarios.level_index(0.99)
            out["liquidity_adjusted_var_99"] = (float(self.scenarios.var[node, k]) + cost) * scale
            out["es_97_5_by_horizon"] = horizon_es * scale
        return out

    def _horizon_es(self, quantity: np.ndarray, horizon: np.ndarray) -> list[float]:
        """Return the liquidity-horizon ES at 97.5 % of every node; one-day moves scaled to the 10-day base."""
        s = self.scenarios
        if s is None:
            return [math.nan] * len(quantity)
        tail = max(int(s.days * 0.025), 1)
        steps: list[dict[int, float]] = [{} for _ in quantity]
        held = np.abs(quantity).max(axis=0, initial=0.0) > 0.0
        for h in sorted(set(horizon[held].tolist()) | {10}):
            used = np.flatnonzero((horizon >= h) & held)
            vectors = np.ascontiguousarray(quantity[:, used]) @ s.usable[used]
            worst = np.partition(vectors, tail - 1, axis=1)[:, :tail].mean(axis=1)
            for k, value in enumerate(worst.tolist()):
                steps[k][h] = max(-value, 0.0) * math.sqrt(10.0)
        return [exposure.liquidity_horizon_es(x) for x in steps]

    def _leverage(self, cell: np.ndarray, a: dict[str, Any], nav: float | None, scale: float) -> dict[str, Any]:
        delta = np.where(a["cash"], 0.0, cell[CELL.index("delta")])
        net = np.bincount(a["underlying"], delta, len(delta))
        gross = float(np.where(a["cash"], 0.0, cell[CELL.index("gross_delta")]).sum())
        found = exposure.leverage(gross, net, nav)
        return {"gross": found["gross"], "commitment": found["commitment"],
                "gross_exposure": (found["gross_exposure"] or 0.0) * scale,
                "commitment_exposure": (found["commitment_exposure"] or 0.0) * scale,
                "nav": None if nav is None else nav * scale, "quality": "good" if nav else "missing"}

    def _drawdowns(self, summary: np.ndarray, names: list[str], navs: dict[str, float], now_ns: int) -> None:
        while len(self.drawdown) < len(self.book.rollup.nodes):
            self.drawdown = np.concatenate([self.drawdown, np.zeros_like(self.drawdown)])
        nodes = self.book.rollup.nodes
        value = np.full(len(self.drawdown), np.nan)
        for node, name in zip(summary.tolist(), names, strict=True):
            sums = nodes[node]
            if name in navs and not sums[ru.UNPRICED]:
                value[node] = navs[name] + sums[ru.REALISED] + sums[ru.UNREALISED] - sums[ru.FEES]
            if self.drawdown[node, 7] == 0.0 and name in self._held_drawdown:
                self.drawdown[node] = self._held_drawdown.pop(name)
        update_drawdown(value, np.zeros(len(value)), summary, now_ns, now_ns // DAY_NS * DAY_NS, self.drawdown)

    def _drawdown(self, node: int) -> dict[str, Any]:
        s = self.drawdown[node]
        if s[7] == 0.0:
            return {"quality": "missing", "why": "no NAV, or unpriced positions"}
        return {"current": _finite(s[6]), "since_inception": _finite(s[2]), "intraday": _finite(s[5]),
                "peak_ns": int(s[1]), "underwater_s": (self._now_ns - int(s[1])) / 1e9 if s[6] < 0 else 0.0,
                "state": s.tolist(), "quality": "good"}

    def resume(self, name: str, ts_ns: int, models: dict[str, Any], prior: dict[str, float] | None) -> None:
        """Go on where the last worker was: peaks, worst falls and the prior day, from a node's record on the log."""
        state = models.get("drawdown", {}).get("state")
        if state is not None and len(state) == self.drawdown.shape[1]:
            self._held_drawdown[name] = np.array([np.nan if x is None else float(x) for x in state])
        if "metrics" in models:
            self.latest[name] = models["metrics"]
        if prior is not None:
            self.prior[name] = prior
        self._day = max(self._day, ts_ns // DAY_NS)

    _now_ns = 0
    _loaded: tuple[np.ndarray, np.ndarray] = (np.zeros((0, 0)), np.zeros(0))

    # ---- attribution ----------------------------------------------------------------------------------------------
    def _tops(self, summary: np.ndarray, grid: np.ndarray) -> Tops:
        """Return for every metric: by node the instruments with the largest values, these values, and the total."""
        found = {m: grid[CELL.index(m)] for m in ("gross", "day", "unrealised", "delta", "vega")}
        if self.scenarios is not None:
            found["var_hist"] = np.stack([self.scenarios.components(n, grid[0, k], 0.99)
                                          for k, n in enumerate(summary.tolist())])
        out = {}
        for metric, values in found.items():
            best = np.empty((len(values), TOP), np.int64)
            largest(values, TOP, best)
            held = np.take_along_axis(values, np.maximum(best, 0), axis=1)
            out[metric] = (best.tolist(), held.tolist(), values.sum(axis=1).tolist())
        return out

    def _top(self, place: int, tops: Tops, labels: list[str], scale: float) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for metric, (best, held, totals) in tops.items():
            total = totals[place]
            out[metric] = [{"id": labels[j], "label": labels[j], "value": value * scale,
                            "share": value / total if total else None}
                           for j, value in zip(best[place], held[place], strict=True) if j >= 0 and value]
        return out

    def _metrics(self, node: int, models: dict[str, dict[str, Any]], scale: float) -> dict[str, float]:
        sums = self.book.rollup.nodes[node]
        out = {m: float(sums[getattr(ru, m.upper())]) * scale for m in ("gross", "net", "delta", "gamma", "vega")}
        out["total"] = float(sums[ru.REALISED] + sums[ru.UNREALISED] - sums[ru.FEES]) * scale
        for model, key, metric in (("var_hist", "var_99", "var_hist"), ("var_hist", "es_97_5", "es_hist"),
                                   ("var_mc", "var_99", "var_mc")):
            if key in models[model]:
                out[metric] = models[model][key]
        if models["leverage"].get("gross") is not None:
            out["leverage"] = models["leverage"]["gross"]
        return out

    def _roll_day(self, now_ns: int) -> None:
        """Freeze the last metrics of a day when a new one begins (UTC)."""
        self._now_ns = now_ns
        day = now_ns // DAY_NS
        if self._day >= 0 and day != self._day and self.latest:
            self.prior = self.latest
        if day != self._day:
            self.explain.new_day()
        self._day = day


def names_of(rollup: Any, nodes: np.ndarray) -> list[str]:
    """Return the names of nodes."""
    return [rollup.node_names[n] for n in nodes.tolist()]


def _percent(level: float) -> str:
    return f"{level * 100:g}".replace(".", "_")


def _finite(value: float) -> float | None:
    return float(value) if value == value else None



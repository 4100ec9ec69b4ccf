"""Eight risk models on one snapshot: every node of the tree measured together, each number with what it left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import rollup as ru
from models.contracts import Contracts
from models.reference import FIRM
from models.risk import exposure, factor, stress
from models.risk.attributes import Attributes, Navs, concentrations_of, held_with
from models.risk.contributors import Contributors, Top
from models.risk.drawdowns import Drawdowns
from models.risk.factor_history import History
from models.risk.factor_set import PATHS, SEED, FactorSet, Loadings, absolute_names, build_factors
from models.risk.margin import Margins
from models.risk.node_cells import CELL, Held, Tree, cells, sums_by_group, tree_of, vectors_of, weighted_sums
from models.risk.node_kernels import (
    BUCKET_NAMES,
    COST,
    DAYS_MAX,
    GROSS,
    MISSING,
    aged_tails,
    exposures_by_underlying,
    liquidity_nodes,
    mean_of_worst,
)
from models.risk.node_paths import NodePaths
from models.risk.pnl_explain import PnlExplain
from models.risk.quantile import age_weights
from models.risk.scenarios import LEVELS, ScenarioBook
from models.risk.stress import Scenario
from models.trading_day import TradingDay
from models.valued_book import ValuedBook

FACTORS_NAMED = 12
TOP = 5
#: models that state no money
SHARES = frozenset({"concentration", "drawdown"})
AGE_DECAY, AGED_TAIL = 0.99, 0.01
LEVEL_NAMES = tuple(f"{level * 100:g}".replace(".", "_") for level in LEVELS)
TAIL_NAMES = (*(f"var_{name}" for name in LEVEL_NAMES), *(f"es_{name}" for name in LEVEL_NAMES))
#: of a node, compared from day to day
METRICS = ("gross", "net", "delta", "gamma", "vega", "total")


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
                 participation: float = 0.20, day: TradingDay | None = None) -> None:
        self.book, self.contracts, self.participation = book, contracts, participation
        self.scenarios = None if history is None else ScenarioBook(book, contracts, history, groupings)
        self._groupings = groupings
        self._factors: FactorSet | None = None
        self._factors_version: tuple[int, frozenset[str]] = (-1, frozenset())
        self.prior: dict[str, dict[str, float]] = {}
        self.latest: dict[str, dict[str, float]] = {}
        self._day, self._trading_day = -1, day or TradingDay()
        self._held = Held(np.zeros(1, np.int64), np.zeros(0, np.int32))
        self._tree_of = (-1, -1)
        self._known_tree = tree_of(np.zeros((0, 1), np.int64))
        self._place_of = np.zeros(0, np.int64)
        self.explain = PnlExplain()
        self._contributors = Contributors(TOP)
        self._shocked: ScenarioBook | None = None
        self._shocked_version = -1
        self._navs, self._attributes, self.margins = Navs(), Attributes(), Margins()
        self.drawdowns = Drawdowns(book, self._navs, self._trading_day)
        #: nodes with positions and a NAV that is not above 0: their leverage is beyond every limit
        self.without_capital: set[str] = set()
        self.stress_scenarios: Sequence[Scenario] = stress.DEFAULTS
        self._paths = NodePaths(contracts)

    def navs(self, names: AbstractSet[str]) -> dict[str, float]:
        """Return the NAV of nodes by name, in the firm's base currency; an unknown one is not there."""
        return self._navs.of(self.book, names)

    # ---- one run --------------------------------------------------------------------------------------------------
    def run(self, now_ns: int) -> ModelRun:
        """Measure every node of the tree; the caller has valued the book on the same snapshot."""
        book, rollup = self.book, self.book.rollup
        summary = self._summary_nodes()
        self._place_of = np.full(len(rollup.nodes), -1, np.int64)
        self._place_of[summary] = np.arange(len(summary))
        instruments, tree = len(book.market.instruments), self._tree(summary)
        self._held, grid = cells(rollup, self._place_of, tree, len(summary), instruments)
        if self.scenarios is not None:
            self.scenarios.fill_units()
            self.scenarios.rebuild(summary)
        self._roll_day(now_ns)
        if not len(summary):
            return ModelRun(book.snapshot_id, now_ns, {}, {}, {})
        names = names_of(rollup, summary)
        self._explain(summary, names, grid[0], now_ns)
        shocked = self._stressed()
        aged = self._aged(summary)
        scales = np.array([self.book.scale_of(node) for node in summary.tolist()])
        factors, quality = self._factor_exposures(grid, scales)
        simulated = self._monte_carlo(grid, quality, tree)
        navs = self._navs.of(book)
        sums = rollup.nodes[summary]
        self.drawdowns.observe(summary, names, navs, sums, now_ns)
        self.without_capital = {name for name, gross in zip(names, sums[:, ru.GROSS].tolist(), strict=True)
                                if gross > 0.0 and navs.get(name, 1.0) <= 0.0}
        attributes, margins = self._attributes.of(book, instruments), self.margins.of(book)
        run = ModelRun(book.snapshot_id, now_ns, {}, {}, {})
        tops = self._tops(summary, names, grid, scales)
        explained = self.explain.of(names, scales)
        stressed = [dict(zip((x.name for x in self.stress_scenarios), row, strict=True)) | {"missing": missing}
                    for row, missing in zip((shocked.vectors[summary] * scales[:, None]).tolist(),
                                            shocked.missing[summary].tolist(), strict=True)]
        figures = np.column_stack([*(sums[:, getattr(ru, m.upper())] for m in METRICS[:-1]), ru.total_pnl(sums)])
        metrics = (figures * scales[:, None]).tolist()
        horizon_es = self._horizon_es(summary, grid[0], attributes["horizon"], tree)
        liquid, exposures, ladders = self._many(grid, attributes)
        concentrations = concentrations_of(
            grid[1], self._held, attributes, held_with(book, self._place_of, tree, len(summary)), TOP)
        for place, node in enumerate(summary.tolist()):
            name = names[place]
            scale = float(scales[place])
            models = {"var_hist": self._historical(node, scale, aged[place]), "var_mc": simulated(place, scale),
                      "greeks": self._greeks(node, scale, ladders[place], attributes), "factor": factors[place],
                      "liquidity": self._liquidity(node, liquid[place], scale, horizon_es[place]),
                      "concentration": concentrations[place],
                      "leverage": self._leverage(exposures[place], navs.get(name), scale, margins[node].tolist()),
                      "drawdown": self.drawdowns.of(node, name, now_ns)}
            models = {m: self._stated(node, x) if m not in SHARES else x for m, x in models.items()}
            models["stress"] = stressed[place]
            models["pnl_explain"] = explained[place] or {"quality": "missing", "why": "one snapshot so far"}
            run.models[name] = models
            run.top[name] = tops[place]
            run.metrics[name] = models["metrics"] = self._metrics(metrics[place], models)
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
            carry = nodes[:, ru.INTEREST] - nodes[:, ru.FUNDING]
            self.explain.observe(names, self._held, quantity, ru.total_pnl(nodes), carry, self.book.market,
                                 self.contracts, s.columns, now_ns)

    def _stressed(self) -> ScenarioBook:
        """Return the stress vectors on the market as it stands; scenarios are looked up when reference data change."""
        if self._shocked is None or self._shocked_version != self.book.reference.version:
            past = self.scenarios.history if self.scenarios is not None else None
            moves = stress.stress_history(self.book, self.stress_scenarios, past)
            self._shocked = ScenarioBook(self.book, self.contracts, moves, self._groupings, True)
            self._shocked_version = self.book.reference.version
        self._shocked.fill_units()
        self._shocked.rebuild(np.zeros(0, np.int64))
        return self._shocked

    def quick(self, node: int) -> dict[str, Any] | None:
        """Return what is exact after every trade: historical VaR and ES of a node; None before the first run."""
        s = self.scenarios
        if s is None or not s.snapshot_id or node >= len(s.var):
            return None
        return {"var_hist": self._stated(node, self._historical(node, self.book.scale_of(node)))}

    def _stated(self, node: int, model: dict[str, Any]) -> dict[str, Any]:
        """Return a model as it is good: of a node whose currency has no rate its money is not known."""
        currency = self.book.without_rate(node)
        return model if currency is None else model | {"quality": "missing", "why": f"no exchange rate of {currency}"}

    def _summary_nodes(self) -> np.ndarray:
        prefixes = tuple(f"{level}:" for level in self.book.levels if level != FIRM)
        return np.array([k for k, n in enumerate(self.book.rollup.node_names) if n == FIRM or n.startswith(prefixes)],
                        np.int64)

    # ---- historical -----------------------------------------------------------------------------------------------
    def _aged(self, summary: np.ndarray) -> list[list[float] | None]:
        """Return (VaR, ES) at 99 % of every node with older days counting less."""
        s = self.scenarios
        if s is None or s.days == 0:
            return [None] * len(summary)
        out = np.empty((len(summary), 2))
        aged_tails(s.vectors, summary, age_weights(s.days, AGE_DECAY)[::-1].copy(), AGED_TAIL, out)
        return list(out.tolist())

    def _historical(self, node: int, scale: float, aged: list[float] | None = None) -> dict[str, Any]:
        s = self.scenarios
        if s is None or s.days == 0:
            return {"quality": "missing", "why": "no history loaded"}
        missing = int(s.missing[node])
        out: dict[str, Any] = {"n": s.days, "horizon_days": s.history.horizon_days, "quantile": "default",
                               "missing": missing,
                               "scenario_volatility": "current" if s.history.scaled else "historical"}
        if s.absolute:
            out["absolute_factors"] = s.absolute[:FACTORS_NAMED]
        var, es = s.tail_of(node)
        out |= zip(TAIL_NAMES, [x * scale for x in (*var.tolist(), *es.tolist())], strict=True)
        if aged is not None:
            out |= {"var_99_aged": aged[0] * scale, "es_99_aged": aged[1] * scale, "age_decay": AGE_DECAY}
        out["quality"] = "partial" if missing else "good"
        return out

    # ---- factors and Monte Carlo ----------------------------------------------------------------------------------
    def _factor_exposures(self, grid: np.ndarray, scales: np.ndarray) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the factor model of every node, and how good it is; keeps exposures and specific variances."""
        s = self.scenarios
        if s is None:
            return [{"quality": "missing", "why": "no history loaded"}] * len(scales), []
        absolute = absolute_names(self.book.market, s.history)
        version = (self.book.reference.version, absolute)
        if self._factors is None or self._factors_version != version:
            self._factors = build_factors(self.book, s.history, absolute)
            self._factors_version = version
            self._loadings = Loadings(self._factors, self.book)
        instruments, nodes = len(self.book.market.instruments), len(self._held.start) - 1
        loadings, specific = self._loadings.of(instruments)
        delta = grid[CELL.index("delta")]
        known = np.isfinite(loadings).all(axis=1) if loadings.size else np.zeros(instruments, bool)
        by_price = self._loadings.by_price(s.columns)
        held_by_price = np.isin(np.arange(instruments), list(self._factors.absolute_of))
        known[held_by_price] = np.isfinite(by_price[held_by_price]).all(axis=1)
        self.node_exposures, own, lacking = (np.empty((nodes, k)) for k in (loadings.shape[1], 1, 1))
        by_delta = known & ~held_by_price
        weighted_sums(delta, self._held, np.where(by_delta[:, None], loadings, 0.0), self.node_exposures)
        if held_by_price.any():  # a move of their price is no share of their value, which may be nothing
            moved = np.empty_like(self.node_exposures)
            weighted_sums(grid[0], self._held, np.where((known & held_by_price)[:, None], by_price, 0.0), moved)
            self.node_exposures += moved
        weighted_sums(delta * delta, self._held, np.where(by_delta, specific, 0.0)[:, None], own)
        there = (delta != 0.0) | ((grid[0] != 0.0) & held_by_price[self._held.columns])
        weighted_sums(there.astype(float), self._held, (~known)[:, None].astype(float), lacking)
        self.node_specific, without = own[:, 0], lacking[:, 0].astype(int)
        names, covariance = self._factors.names, self._factors.covariance
        quality = ["partial" if n else "good" for n in without.tolist()]

        found = factor.decompose(self.node_exposures, covariance, self.node_specific)
        order = np.argsort(-np.abs(found["contribution"]), axis=1)[:, :FACTORS_NAMED]
        contributions, exposures = ((np.take_along_axis(a, order, axis=1) * scales[:, None]).tolist()
                                    for a in (found["contribution"], self.node_exposures))
        return [{"volatility": volatility, "specific": specific_, "contribution": dict(zip(labels, parts, strict=True)),
                 "exposure": dict(zip(labels, exposed, strict=True)), "missing": missing, "quality": good}
                for volatility, specific_, labels, parts, exposed, missing, good in zip(
                    (found["volatility"] * scales).tolist(), (found["specific"] * scales).tolist(),
                    [[names[j] for j in row] for row in order.tolist()], contributions, exposures, without.tolist(),
                    quality, strict=True)], quality

    def _monte_carlo(self, grid: np.ndarray, quality: list[str], tree: Tree) -> Any:
        fs, s = self._factors, self.scenarios
        if s is None or fs is None or not fs.names:
            return lambda place, scale: {"quality": "missing", "why": "no history loaded"}
        found = self._paths.measure(fs, self.node_exposures, self.node_specific, self._held, grid[0], tree,
                                    self.book.market, s.columns)

        def one(place: int, scale: float) -> dict[str, Any]:
            return {"var_99": found["var"][place] * scale, "es_99": found["es"][place] * scale,
                    "standard_error": found["standard_error"][place] * scale, "paths": PATHS, "seed": SEED,
                    "factors": len(fs.names), "horizon_days": 1, "quality": quality[place]}

        return one

    def _tree(self, summary: np.ndarray) -> Tree:
        """Return how sums of books make those of the nodes above; looked up when there is a new place in the tree."""
        leaves = self.book.rollup.leaves.nodes
        if self._tree_of != (len(leaves), len(summary)):
            depth = len(self.book.levels)
            chains = np.unique(leaves[:, :depth], axis=0)
            found = np.where(chains >= 0, self._place_of[chains], -1)
            self._known_tree = tree_of(found[found[:, 0] >= 0])
            self._tree_of = (len(leaves), len(summary))
        return self._known_tree

    # ---- the others -----------------------------------------------------------------------------------------------
    def _many(self, grid: np.ndarray, a: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Return for every node: what leaving takes, its exposures, and gamma and vega by expiry."""
        nodes = len(self._held.start) - 1
        liquid, exposures = np.empty((nodes, 9)), np.empty((nodes, 2))
        liquidity_nodes(grid[0], grid[1], self._held, a["adv"], a["spread"], self.participation, liquid)
        exposures_by_underlying(grid[CELL.index("delta")], grid[CELL.index("gross_delta")], self._held, a["underlying"],
                                a["cash"], exposures)
        coin = self.contracts.coin_by_instrument(len(self.book.market.instruments)).astype(float)
        premium = np.empty((nodes, 1))
        weighted_sums(grid[CELL.index("net")], self._held, coin[:, None], premium)
        gamma, vega = np.empty((2, nodes, len(a["labels"]["expiry"])))
        for name, sums in (("gamma", gamma), ("vega", vega)):
            sums_by_group(grid[CELL.index(name)], self._held, a["expiry"], sums)
        return liquid.tolist(), exposures.tolist(), list(zip(gamma.tolist(), vega.tolist(),
                                                                premium[:, 0].tolist(), strict=True))

    def _greeks(self, node: int, scale: float, ladder: tuple[list[float], list[float], float],
                a: dict[str, Any]) -> dict[str, Any]:
        sums = self.book.rollup.nodes[node].tolist()
        out: dict[str, Any] = {g: sums[ru.DELTA + k] * scale for k, g in enumerate(ru.GREEKS)}
        gamma, vega, premium = ladder  # what is paid in coin is short of that coin
        out["delta_less_premium"] = out["delta"] - premium * scale
        missing, stale = round(sums[ru.NO_GREEKS]), round(sums[ru.STALE])
        by_expiry = {label: {"gamma": gamma[k] * scale, "vega": vega[k] * scale} for label, k in a["expiries"]}
        return out | {"by_expiry": by_expiry, "missing": missing, "stale": stale, "sticky": "strike",
                      "quality": "partial" if missing else "stale" if stale else "good"}

    def _liquidity(self, node: int, row: list[float], scale: float, horizon_es: float) -> dict[str, Any]:
        unknown, days, cost = round(row[MISSING]), row[DAYS_MAX], row[COST]
        out: dict[str, Any] = {
            "participation": self.participation,
            "buckets": dict(zip(BUCKET_NAMES, row, strict=False)) if row[GROSS] else {},
            "days_max": _finite(days), "cost": cost * scale, "missing": unknown,
            "quality": "partial" if unknown else "good"}
        if self.scenarios is not None:
            out["liquidity_adjusted_var_99"] = (float(self.scenarios.tail_of(node)[0][-1]) + cost) * scale
            out["es_97_5_by_horizon"] = horizon_es * scale
        return out

    def _horizon_es(self, summary: np.ndarray, quantity: np.ndarray, horizon: np.ndarray, tree: Tree) -> list[float]:
        """Return the liquidity-horizon ES at 97.5 % of every node; moves scaled to the 10-day base."""
        s = self.scenarios
        if s is None:
            return [math.nan] * len(summary)
        tail = max(int(s.days * 0.025), 1)
        held = np.zeros(len(horizon), bool)
        held[self._held.columns[quantity != 0.0]] = True
        held &= ~np.isnan(s.unit[: len(horizon), 0])
        steps: dict[int, list[float]] = {}
        for h in sorted(set(horizon[held].tolist()) | {10}):
            if h == 10:
                vectors = s.vectors[summary]
            else:
                vectors = np.empty((len(summary), s.days))
                vectors_of(quantity, self._held, (horizon >= h) & held, s.unit, tree.base, tree.edges, vectors)
            worst = np.empty(len(summary))
            mean_of_worst(vectors, tail, worst)
            steps[h] = (np.maximum(-worst, 0.0) * math.sqrt(10.0 / s.history.horizon_days)).tolist()
        return [exposure.liquidity_horizon_es({h: values[k] for h, values in steps.items()})
                for k in range(len(summary))]

    def _leverage(self, exposures: list[float], nav: float | None, scale: float, margin: list[float],
                  ) -> dict[str, Any]:
        commitment, gross = exposures
        # of nothing, or less, what is held is not a small multiple: there is no ratio, and a limit on it is exceeded
        whole = nav if nav is not None and nav > 0.0 else None
        why = {} if whole else {"why": "no NAV" if nav is None else "NAV is not above 0"}
        return why | {"gross": gross / whole if whole else None, "commitment": commitment / whole if whole else None,
                "gross_exposure": gross * scale, "commitment_exposure": commitment * scale,
                "margin_initial": _finite(margin[0] * scale), "margin_maintenance": _finite(margin[1] * scale),
                "nav": None if nav is None else nav * scale, "quality": "good" if whole else "missing"}

    def resume(self, name: str, ts_ns: int, models: dict[str, Any], prior: dict[str, float | None] | None,
               top: dict[str, Any] | None = None) -> None:
        """Go on where the last worker was: peaks, worst falls and the prior day, from a node's record on the log."""
        self._contributors.resume(name, top or {})
        self.drawdowns.resume(name, models.get("drawdown", {}))
        if "metrics" in models:
            self.latest[name] = _known(models["metrics"])
        if prior is not None:
            self.prior[name] = _known(prior)
        self._day = max(self._day, self._trading_day.index(ts_ns))

    _now_ns = 0
    _loadings: Loadings

    # ---- attribution ----------------------------------------------------------------------------------------------
    def _tops(self, summary: np.ndarray, names: list[str], grid: np.ndarray, scales: np.ndarray) -> list[Top]:
        found = {m: grid[CELL.index(m)] for m in ("gross", "net", "day", "unrealised", "delta", "gamma", "vega")}
        if self.scenarios is not None:
            found["var_hist"] = self.scenarios.components(summary, grid[0], self._held, 0.99)
        return self._contributors.of(found, self._held, list(self.book.market.instruments), scales, names)

    def _metrics(self, figures: list[float], models: dict[str, dict[str, Any]]) -> dict[str, float]:
        out = dict(zip(METRICS, figures, strict=True))
        for model, key, metric in (("var_hist", "var_99", "var_hist"), ("var_hist", "es_97_5", "es_hist"),
                                   ("var_mc", "var_99", "var_mc")):
            if key in models[model]:
                out[metric] = models[model][key]
        leverage = models["leverage"]
        if leverage["gross"] is not None:
            out["leverage"] = leverage["gross"]
        return out

    def _roll_day(self, now_ns: int) -> None:
        """Freeze the last metrics of a day when a new one begins."""
        self._now_ns = now_ns
        day = self._trading_day.index(now_ns)
        if self._day >= 0 and day != self._day and self.latest:
            self.prior = self.latest
            self._contributors.new_day()
        if day != self._day:
            self.explain.new_day()
        self._day = day


def names_of(rollup: Any, nodes: np.ndarray) -> list[str]:
    """Return the names of nodes."""
    return [rollup.node_names[n] for n in nodes.tolist()]


def _finite(value: float) -> float | None:
    return float(value) if value == value else None


def _known(metrics: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}

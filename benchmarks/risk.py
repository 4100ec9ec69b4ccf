"""Risk models on a synthetic firm: work after a trade, after a mark window, and all eight models, beside the plain ways.

50,000 positions, 2,000 instruments (1,000 of them options), 500 scenarios, 200 books in the real size.
"""

from __future__ import annotations

import hashlib
import time
from decimal import Decimal
from typing import Any

import numpy as np

from app.collector import settle_collector
from benchmarks._common import arguments, finish
from models.pricing import black_scholes as bs
from models.risk.factor_history import History
from models.risk.factor_set import PATHS, FactorSet
from models.risk.live import RiskModels
from models.risk.monte_carlo import factor_draws
from models.risk.node_cells import cells
from models.risk.node_paths import NodePaths
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")
NOW = 1_795_000_000_000_000_000
SIZES = {"smoke": (2_000, 200, 100, 20, 20), "real": (50_000, 2_000, 500, 200, 200)}


def firm(positions: int, instruments: int, books: int, seed: int) -> tuple[ValuedBook, list[str]]:
    """Return a valued book of equities and options on them."""
    rng = np.random.default_rng(seed)
    book = ValuedBook("USD", LEVELS)
    equities = [f"EQ{i}" for i in range(instruments // 2)]
    for i, name in enumerate(equities):
        book.add_instrument(Instrument(instrument=name, asset_class="equity", currency="USD", sector=f"S{i % 10}",
                                       issuer=f"I{i}", country="US", adv=Decimal(1_000_000), prior_close=Decimal(100)))
    options = [f"OP{i}" for i in range(instruments - len(equities))]
    for i, name in enumerate(options):
        book.add_instrument(Instrument(instrument=name, asset_class="option", currency="USD", multiplier=Decimal(100),
                                       underlying=equities[i % 100], right="call" if i % 2 else "put",
                                       strike=Decimal(80 + i % 40), expiry="2027-06-18", style="european"))
    book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1, 0.04), (3650, 0.04)]))
    for name in equities[:100]:
        book.add_surface(Surface(underlying=name, ts_event=NOW, dividends=[], vols=[
            VolSlice(expiry="2027-06-18", strikes=[80.0, 120.0], vols=[0.3, 0.25])]))
    for a in range(2 * books):
        b = a // 2
        book.add_account(Account(account=f"A{a}", book=f"B{b}", desk=f"D{b // 4}", strategy=f"S{b // 10}",
                                 fund=f"F{b // 40}", dealer=f"d{b % 20}", pm=f"p{b % 10}", nav=Decimal(10_000_000)))
    for name in equities:
        mark(book, name, float(rng.uniform(80, 120)))
    for k in range(positions):
        name = options[int(rng.integers(len(options)))] if k % 10 == 0 else equities[int(rng.integers(len(equities)))]
        book.add_position(position(f"A{k % (2 * books)}", name, float(rng.integers(-500, 500)), k))
    book.revalue(NOW)
    return book, equities


def position(account: str, instrument: str, quantity: float, rev: int) -> Position:
    """Return a position row."""
    return Position(account=account, instrument=instrument, quantity=str(quantity), average_price=100.0, realised_pnl=0.0,
                    fees={}, currency="USD", trades=1, last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None,
                    as_of=AsOf(0, rev), revision=rev)


def mark(book: ValuedBook, name: str, price: float) -> None:
    """Mark an instrument."""
    book.add_mark(Mark(instrument=name, window_end=NOW, ts_event=NOW, bid=price - 0.01, ask=price + 0.01, mid=price,
                       last=None, quality="good"))


def greeks_ns(n: int = 200_000) -> tuple[float, float, float]:
    """Return ns an option of our kernel, of QuantLib's calculator in a Python loop, and of plain Python."""
    import math
    from statistics import NormalDist

    import QuantLib as ql

    rng = np.random.default_rng(1)
    c = [rng.choice([-1.0, 1.0], n), rng.uniform(50, 150, n), rng.uniform(50, 150, n), rng.uniform(0.02, 2, n),
         rng.uniform(0.1, 0.6, n), rng.uniform(0, 0.06, n), rng.uniform(-0.02, 0.06, n)]
    bs.greeks(*c)
    ours = min(timed(lambda: bs.greeks(*c)) for _ in range(7)) / n
    small = 3_000
    rows = list(zip(*(x[:small].tolist() for x in c), strict=True))

    def quantlib() -> None:
        for w, s, k, t, v, r, b in rows:
            calc = ql.BlackCalculator(ql.PlainVanillaPayoff(ql.Option.Call if w > 0 else ql.Option.Put, k),
                                      s * math.exp(b * t), v * math.sqrt(t), math.exp(-r * t))
            calc.value(), calc.delta(s), calc.gamma(s), calc.vega(t), calc.theta(s, t), calc.rho(t)

    normal = NormalDist()

    def plain() -> None:
        for w, s, k, t, v, r, b in rows:
            sd = v * math.sqrt(t)
            d1 = (math.log(s / k) + b * t) / sd + sd / 2
            d2, fwd, df, pdf = d1 - sd, s * math.exp((b - r) * t), math.exp(-r * t), normal.pdf(d1)
            n1, n2 = normal.cdf(w * d1), normal.cdf(w * d2)
            price = w * (fwd * n1 - k * df * n2)
            (price, w * fwd / s * n1, fwd * pdf / (s * s * sd), fwd * pdf * math.sqrt(t),
             -fwd * pdf * v / (2 * math.sqrt(t)) - w * (b - r) * fwd * n1 - w * r * k * df * n2, w * k * t * df * n2)

    return ours, min(timed(quantlib) for _ in range(3)) / small, min(timed(plain) for _ in range(3)) / small


def timed(work: Any) -> float:
    """Return how long a call takes, ns."""
    begin = time.perf_counter_ns()
    work()
    return float(time.perf_counter_ns() - begin)


def monte_carlo_ms(models: RiskModels, rounds: int) -> tuple[np.ndarray, float]:
    """Return ms of 10,000 paths x 50 factors for all nodes, options revalued on every path; and of NumPy without options."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(0, 0.002, (50, 50))
    covariance = mixing @ mixing.T
    known = models._factors
    assert known is not None
    loadings = {name: rng.normal(0, 1, 50) for name in known.loadings}
    fs = FactorSet([f"f{k}" for k in range(50)], covariance, loadings, known.specific, factor_draws(covariance, PATHS, 42))
    exposures = rng.normal(0, 1e6, (len(models.node_exposures), 50))
    book, scenarios, paths = models.book, models.scenarios, NodePaths(models.contracts)
    assert scenarios is not None
    place, tree = models._place_of, models._tree(models._summary_nodes())
    held, cells_ = cells(book.rollup, place, tree, len(exposures), len(book.market.instruments))

    def once() -> None:
        paths.measure(fs, exposures, models.node_specific, held, cells_[0], tree, book.market, scenarios.columns)

    def plain() -> None:
        pnl = exposures @ fs.draws.T
        worst = np.sort(pnl, axis=1)[:, :101]
        worst[:, 100], worst[:, :100].mean(axis=1)
    once()
    return np.array([timed(once) for _ in range(rounds)]) / 1e6, min(timed(plain) for _ in range(2)) / 1e6


def run(size: str, seed: int) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    positions, instruments, days, books, rounds = SIZES[size]
    rng = np.random.default_rng(seed)
    book, equities = firm(positions, instruments, books, seed)
    history = History(tuple(equities), rng.normal(0, 0.015, (days, len(equities))))
    models = RiskModels(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios = models.scenarios
    assert scenarios is not None
    models.run(NOW)
    settle_collector()  # as a worker does
    print(f"{book.rollup.count} rows, {len(book.rollup.node_names)} nodes, {days} scenarios", flush=True)

    trades, everything = [], []
    for k in range(40 * rounds):
        row = int(rng.integers(book.rollup.count))
        held = book.positions[row]
        begin = time.perf_counter_ns()
        book.add_position(position(held.account, held.instrument, float(rng.integers(-500, 500)), positions + k))
        which = book.value_pending()
        middle = time.perf_counter_ns()
        scenarios.update(which)
        end = time.perf_counter_ns()
        trades.append(end - middle)
        everything.append(end - begin)
    work = scenarios.update(which) / (positions * days)

    windows, full, scratch = [], [], []
    # the firm, its funds, strategies, desks and the books
    tree = np.array([k for k, n in enumerate(book.rollup.node_names) if n.partition(":")[0] in book.levels])
    for _ in range(rounds):
        for name in equities:
            mark(book, name, float(rng.uniform(80, 120)))
        windows.append(timed(lambda: book.revalue(NOW)))
        full.append(timed(lambda: models.run(NOW)))
        scratch.append(timed(lambda: scenarios.rebuild(tree)))
    vectors = scenarios.vectors[book.rollup.node_index["firm"]].copy()
    quantity = np.zeros(len(scenarios.unit))
    np.add.at(quantity, book.rollup.rows["instrument"][: book.rollup.count], book.rollup.rows["quantity"][: book.rollup.count])
    exact = quantity @ np.nan_to_num(scenarios.unit)
    gap = float(np.abs(vectors - exact).max() / np.abs(exact).max())
    numpy_full = min(timed(lambda: np.nan_to_num(scenarios.unit)[book.rollup.rows["instrument"][: book.rollup.count]].T
                           @ book.rollup.rows["quantity"][: book.rollup.count]) for _ in range(3))
    simulated, plain_paths = monte_carlo_ms(models, rounds)
    ours, quantlib, plain = greeks_ns(20_000 if size == "smoke" else 200_000)
    return {
        "bench": "risk", "size": size, "seed": seed, "positions": positions, "instruments": instruments, "scenarios": days,
        "after_trade_var_us": quantiles(np.array(trades) / 1e3), "after_trade_all_us": quantiles(np.array(everything) / 1e3),
        "after_trade_share_of_full_work": work, "window_ms": quantiles(np.array(windows) / 1e6),
        "eight_models_ms": quantiles(np.array(full) / 1e6), "var_from_scratch_ms": quantiles(np.array(scratch) / 1e6),
        "monte_carlo_ms": quantiles(simulated), "monte_carlo_nodes": len(models.node_exposures),
        "numpy_monte_carlo_ms": plain_paths, "numpy_firm_vector_ms": numpy_full / 1e6, "greeks_ns_per_option": ours, "ratio_quantlib": quantlib / ours,
        "ratio_plain_python": plain / ours, "gap_to_full": gap,
        "result_sha256": hashlib.sha256(np.round(exact, 6).tobytes()).hexdigest()[:16]}


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Return p50, p99, p99.9, p99.99 and the largest."""
    found = np.quantile(values, [0.5, 0.99, 0.999, 0.9999, 1.0]).tolist()
    return dict(zip(("p50", "p99", "p99_9", "p99_99", "max"), (round(x, 3) for x in found), strict=True))


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    finish(args, run(args.size, args.seed))


if __name__ == "__main__":
    main()

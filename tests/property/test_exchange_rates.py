"""Rates of one snapshot are a function of its pairs: of no order, of no name, of as many pairs as it takes (R9, R15)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.exchange_rates import Pair, solve_rates
from models.market import Market, pair_currencies

N = 6
PAIRS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1), st.floats(0.01, 100.0), st.booleans()).map(
    lambda x: Pair(*x)), max_size=12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_neither_order_nor_names_nor_the_way_a_pair_is_quoted_matter(pairs: list[Pair], random: Any) -> None:
    want = solve_rates(pairs, 0, N)
    shuffled = random.sample(pairs, len(pairs))
    again = solve_rates(shuffled, 0, N)
    np.testing.assert_array_equal(want.rate, again.rate)
    np.testing.assert_array_equal(want.stale, again.stale)
    named = [0, *random.sample(range(1, N), N - 1)]
    renamed = solve_rates([p._replace(base=named[p.base], quote=named[p.quote]) for p in shuffled], 0, N)
    np.testing.assert_array_equal(want.rate, renamed.rate[named])
    turned = solve_rates([Pair(p.quote, p.base, 1.0 / p.price, p.stale) for p in pairs], 0, N)
    np.testing.assert_allclose(want.rate, turned.rate, rtol=1e-12)


@given(PAIRS)
def test_the_best_path_decides(pairs: list[Pair]) -> None:
    """Every path is tried: fewest stale pairs, then fewest pairs; the mean of those that are equally good."""
    found = solve_rates(pairs, 0, N)
    paths: dict[int, dict[tuple[int, int], list[float]]] = {k: {} for k in range(1, N)}
    used = [p for p in pairs if p.base != p.quote]

    def walk(at: int, seen: frozenset[int], cost: tuple[int, int], rate: float) -> None:
        for p in used:
            to = p.quote if p.base == at else p.base if p.quote == at else -1
            if to < 0 or to in seen or len(seen) > 5:
                continue
            after = (cost[0] + p.stale, cost[1] + 1)
            # the rate of `to`: a unit of it in the base currency
            value = rate / p.price if p.base == at else rate * p.price
            paths[to].setdefault(after, []).append(value)
            walk(to, seen | {to}, after, value)

    walk(0, frozenset({0}), (0, 0), 1.0)
    for k, by_cost in paths.items():
        if not by_cost:
            assert math.isnan(found.rate[k])
            continue
        best = min(by_cost)
        assert found.stale[k] == best[0]
        assert min(by_cost[best]) * (1 - 1e-9) <= found.rate[k] <= max(by_cost[best]) * (1 + 1e-9)


@given(st.lists(st.floats(0.01, 100.0), min_size=N, max_size=N), PAIRS, st.integers(0, N - 1))
def test_consistent_pairs_give_one_cross_in_every_base_currency(worth: list[float], pairs: list[Pair], base: int) -> None:
    consistent = [p._replace(price=worth[p.base] / worth[p.quote]) for p in pairs]
    rate = solve_rates(consistent, base, N).rate
    known = np.isfinite(rate)
    np.testing.assert_allclose(rate[known], np.array(worth)[known] / worth[base], rtol=1e-9)


def test_what_the_field_found() -> None:
    def chf(order: tuple[str, ...], listed: tuple[str, ...]) -> float:
        prices = {"EURUSD": (1.10, False), "USDCHF": (0.80, False), "EURCHF": (0.90, True)}
        market = Market("USD")
        for name in listed:
            market.set_pair(name, name[:3], name[3:], None)
        for name in order:
            market.set_mark(name, *prices[name])
        assert not market.rate_stale[market.currencies["CHF"]]
        return float(market.rate[market.currencies["CHF"]])

    names = ("EURUSD", "USDCHF", "EURCHF")
    for order, listed in itertools.product(itertools.permutations(names), repeat=2):
        assert chf(order, listed) == 1.25
    market = Market("USD")
    for name in ("AAABBB", "BBBCCC", "CCCUSD"):
        market.set_pair(name, name[:3], name[3:], None)
        market.set_mark(name, 2.0, name == "BBBCCC")
    assert market.rate[market.currencies["AAA"]] == pytest.approx(8)
    assert [market.rate_stale[market.currencies[c]] for c in ("AAA", "BBB", "CCC")] == [1, 1, 0]
    market.set_mark("CCCUSD", None, False)
    assert np.isnan(market.rate[market.currencies["AAA"]]), "what has no path has no rate"


def test_names_of_pairs() -> None:
    assert [pair_currencies(*x) for x in (("EURUSD", "USD"), ("USDT/USD", "USD"), ("BTC-USDT", "USDT"), ("1INCH.USD", "USD"),
            ("1INCHUSDT", "USDT"), ("BTC_USDT", "USDT"), ("USDUSDT", "USDT"), ("EURUSD.EBS", "USD"), ("ABCDEFGHIJKL/USD", "USD"), ("WBTC-BTC", "BTC"))
            ] == [("EUR", "USD"), ("USDT", "USD"), ("BTC", "USDT"), ("1INCH", "USD"),
                  ("1INCH", "USDT"), ("BTC", "USDT"), ("USD", "USDT"), ("EUR", "USD"), ("ABCDEFGHIJKL", "USD"), ("WBTC", "BTC")]
    assert [pair_currencies(*x) for x in (("EURUSD", "GBP"), ("USD", "USD"), ("eurUSD", "USD"), ("USDUSD", "USD"),
                                                ("EURUSDT", "USD"), ("ABCDEFGHIJKLMUSD", "USD"), ("ÉURUSD", "USD"), ("XUSD", "USD"))] == [None] * 8

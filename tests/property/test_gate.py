"""The gate's kernel against its naive twin over random books; every code occurs; decisions reproduce from their inputs."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate import state as gs
from models.gate.explain import INPUTS_VERSION, explain
from models.gate.flow import Ring
from models.gate.kernel import check_batch, check_order
from models.gate.naive import naive_check
from models.gate.node_checks import count_message
from models.gate.price_drift import PriceDrift
from models.gate.state import METRICS, GateState
from schemas.codec import encode
from schemas.controls import MEANING, Check
from schemas.records import Order
from tests.support.examples import scaled

INF = math.inf
ROLES = ("book", "desk", "strategy", "fund", "firm", "dealer", "pm", "account", "trader", "issuer", "sector", "counterparty", "venue", "instrument", "asset_class", "currency", "pair")
#: places of nodes in the account's row: its levels and the firm, room for more levels, dealer, PM, itself
TREE, OWN = 5, 3
NAN = float("nan")
#: whose names reasons say
NAMED = Order(order_id="o", account="A", trader="t", instrument="X", side="buy", type="limit", quantity=Decimal(1), ts_event=0)
T0 = 1_795_000_000_000_000_000
SIZE = st.sampled_from([0.0, 1.0, 50.0, 100.0, 150.0, 1000.0])


def sometimes(value: st.SearchStrategy[Any], other: Any = NAN) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(other), st.just(other), st.just(other), value)


S = 1_000_000_000
GAPS = st.lists(st.integers(0, 3_000), min_size=1, max_size=60)
#: messages as old as a window, a part of it, and just beyond
WINDOW = st.sampled_from([S, 60 * S, 320_000_000]).flatmap(lambda w: st.fixed_dictionaries({
    "window_ns": st.just(w), "others": st.sampled_from([(0, 0.0), (0, 0.0), (2, 5e3)]), "soft": st.dictionaries(st.sampled_from(gs.MESSAGE_METRICS), st.sampled_from([1, 3, 5e3, 2e4])),
    "limit": st.dictionaries(st.sampled_from(gs.MESSAGE_METRICS), st.sampled_from([1, 3, 5e3, 2e4])),
    "sent": st.lists(st.tuples(st.sampled_from([0, w // 2, w - w // 31, w - 1, w, w + w // 31, w + w // 15, 2 * w]).map(lambda age: T0 - age), SIZE.map(lambda v: v * 100)), max_size=4).map(sorted)}))
NODE = st.fixed_dictionaries({
    "value": st.fixed_dictionaries({m: st.sampled_from([0.0, 5e3, -5e3, 2e4, 0.0, 5e3, -5e3, NAN]) for m in METRICS} | {m: st.sampled_from([0.0, 0.0, 3e3, 2e4]) for m in gs.WORKING}),
    "limit": st.fixed_dictionaries({m: sometimes(st.sampled_from([0.5, 100.0, 9_999.0, 10_000.0, 25_000.0])) for m in METRICS}),
    "soft": st.fixed_dictionaries({m: sometimes(sometimes(st.sampled_from([0.5, 100.0, 9_999.0, 10_000.0, 25_000.0]))) for m in METRICS}),
    "state": st.sampled_from([0, 0, 0, 1, 2, 3]), "nav": st.sampled_from([NAN, 0.0, -1e3, 1e4, 1e6]),
    "exposure_ns": st.sampled_from([T0, T0 - 10**9, T0 - 10**11]), "windows": st.lists(WINDOW, max_size=2, unique_by=lambda w: w["window_ns"])})
PRICE = st.sampled_from([NAN, -101.0, -3.5, 99.0, 100.0, 101.0, 120.0])
INSTRUMENT = st.fixed_dictionaries({
    **{f: st.booleans() for f in ("restricted", "shortable", "equity", "price_test", "inverse", "stale", "positive", "base_cash")},
    "state": st.sampled_from([0, 0, 0, 1, 2]), **dict.fromkeys(("mid", "bid", "ask", "last", "prior_close"), PRICE), "tick": st.just(0.01),
    "collar_bps": st.sampled_from([0.0, 100.0]), "collar_ticks": st.sampled_from([0.0, 5.0]), "drift_bps": st.sampled_from([0.0, 50.0]),
    "soft_bps": st.sampled_from([NAN, NAN, 50.0]), "soft_ticks": st.sampled_from([NAN, NAN, 5.0]), "soft_drift": st.sampled_from([NAN, NAN, 20.0]), "soft_low": PRICE, "soft_high": PRICE,
    "drift_low": PRICE, "drift_high": PRICE, "unit": st.sampled_from([NAN, 1.0, 10.0]), "accrued": st.sampled_from([0.0, 2.5]), "discount": st.sampled_from([1.0, 0.97, NAN]), "tiers": st.sampled_from([[(INF, NAN)], [(INF, 0.1)], [(5_000.0, 0.05), (20_000.0, 0.1)], [(5_000.0, 0.05), (20_000.0, 0.1), (INF, 0.2)]]),
    "unit_delta": st.sampled_from([NAN, 100.0, -30.0]), "unit_vega": st.sampled_from([NAN, 0.0, 2.0]), "unit_var": st.sampled_from([0.0, 2.0, NAN]), "price_ns": st.sampled_from([T0, T0 - 10**11]),
    "age_max_ns": st.just(10**10)})
POSITION = st.fixed_dictionaries({
    "soft_long": sometimes(SIZE), "soft_short": sometimes(SIZE), "quantity": st.sampled_from([0.0, 100.0, -100.0, 1000.0]), "working_buy": SIZE, "working_sell": SIZE, "best_buy": st.sampled_from([-math.inf, 100.0]),
    "best_sell": st.sampled_from([math.inf, 100.0]), "long_limit": sometimes(SIZE), "short_limit": sometimes(SIZE)})
ORDER = st.fixed_dictionaries({
    "side": st.sampled_from([1.0, -1.0]), "executed": st.sampled_from([0.0, 0.0, 50.0, 200.0]), "replaced": st.sampled_from([0.0, 0.0, 100.0, 200.0]), "was_price": PRICE, "same_names": st.booleans(), "quantity": st.sampled_from([1.0, 50.0, 100.0, 150.0, 0.0, -1.0, NAN, math.inf]), "price": PRICE, "ts_ns": st.just(T0),
    "algo": st.sampled_from([-1, 0]), "market": st.booleans(), "stop": st.sampled_from([False, False, True]), "stop_price": PRICE, "opposite": st.sampled_from([NAN, NAN, 99.0, 100.0, 101.0]), "reduce_only": st.sampled_from([False, False, True]), "locate": st.booleans(), "exempt": st.booleans(), "action": st.sampled_from([0, 1]), "same_ns": st.sampled_from([0, 0, T0 - 10**8, T0 - 10**10]), "state": st.sampled_from([0, 0, 0, 0, 1, 2])})
CASE = st.fixed_dictionaries({
    "order": ORDER, "instrument": sometimes(INSTRUMENT, None) | INSTRUMENT, "known": st.booleans() | st.just(True), "account_state": st.sampled_from([0, 0, 0, 1, 2]),
    "position": POSITION, "nodes": st.tuples(*[sometimes(NODE, None)] * len(ROLES)), "shares": st.lists(NODE, max_size=3), "required": st.booleans(), "positions_age_ns": st.sampled_from([0, 10**9, 5 * 10**9, 5 * 10**9 + 1, T0]), "all": st.sampled_from([0, 0, 0, 1, 2])})


def open_windows(s: GateState, node: str, windows: list[dict[str, Any]]) -> None:
    for w in windows:
        row = s.rates[s.window(s.node(node), w["window_ns"])]
        row["others"] = w["others"]
        for m, metric in enumerate(gs.MESSAGE_METRICS):
            row["limit"][m] = w["limit"].get(metric, NAN)
            row["soft"][m] = w["soft"].get(metric, NAN)
        for ts_ns, value in w["sent"]:
            count_message(row, ts_ns, value)


def build(case: dict[str, Any]) -> GateState:
    s = GateState(4, 4, 8, 32, 32, 4)
    s.settings["limits_required"], s.settings["state"], s.settings["positions_ns"] = case["required"], case["all"], T0 - case["positions_age_ns"]
    a, i = s.account("A"), s.instrument("I")
    index = []
    for role, node in zip([*ROLES, *(f"share{k}" for k in range(len(case["shares"])))], [*case["nodes"], *case["shares"]], strict=True):
        index.append(-1 if node is None else s.node(role))
        if node is not None:
            k = index[-1]
            s.nodes["value"][k] = [node["value"][m] for m in gs.FIGURES]
            s.nodes["limit"][k] = [node["limit"][m] for m in METRICS]
            s.nodes["soft"][k] = [node["soft"][m] for m in METRICS]
            s.nodes["softer"][k] = any(not math.isnan(x) for x in node["soft"].values())
            for f in ("state", "nav", "exposure_ns"):
                s.nodes[f][k] = node[f]
            if not role.startswith("share"):
                open_windows(s, role, node["windows"])
    s.accounts["known"][a], s.accounts["state"][a], s.accounts["nodes"][a] = case["known"], case["account_state"], [*index[:TREE], *[-1] * (gs.ACCOUNT_NODES - TREE - OWN), *index[TREE:TREE + OWN]]
    if case["instrument"] is not None:
        row = s.instruments[i]
        row["known"] = 1
        for f, v in case["instrument"].items():
            if f != "tiers":
                row[f] = v
        for t, (up_to, rate) in enumerate(case["instrument"]["tiers"]):
            row["margin_up_to"][t], row["margin_rate"][t] = up_to, rate
        for f, role in (("issuer", "issuer"), ("sector", "sector"), ("node", "instrument"), ("asset_class", "asset_class"), ("currency", "currency"), ("pair", "pair")):
            row[f] = index[ROLES.index(role)]
    p = s.position(a, i)
    for f, v in case["position"].items():
        p[f] = v
    o = s.orders[0]
    o["account"], o["instrument"] = a, i
    for role in ("trader", "counterparty", "venue"):
        o[role] = index[ROLES.index(role)]
    o["shares"][: len(index) - len(ROLES)] = index[len(ROLES):]
    for f, v in case["order"].items():
        o[f] = v
    return s


def codes(mask: int) -> set[Check]:
    return {c for c in Check if mask >> c & 1}


def expected(case: dict[str, Any]) -> tuple[set[Check], set[Check]]:
    nodes = [n | {"role": r} for r, n in zip(ROLES, case["nodes"], strict=True) if n is not None] + [n | {"role": "share"} for n in case["shares"]]
    return naive_check(case["order"], {"state": case["account_state"]} if case["known"] else None, case["instrument"], case["position"], nodes,
                       {"state": case["all"], "duplicate_ns": 500_000_000, "exposure_age_ns": 5_000_000_000, "position_age_ns": 5_000_000_000,
                        "positions_ns": T0 - case["positions_age_ns"], "limits_required": case["required"]})


@settings(max_examples=scaled(300))
@given(CASE)
def test_the_kernel_gives_every_reason_its_naive_twin_gives(case: dict[str, Any]) -> None:
    s = build(case)
    check_order(s.table.ctypes.data, 0)
    hard, soft = expected(case)
    assert codes(int(s.results["hard"][0])) == hard
    # an order that cannot be read at all is measured against nothing
    assert codes(int(s.results["soft"][0])) == soft


@settings(max_examples=scaled(100))
@given(CASE)
def test_a_decision_reproduces_from_its_inputs(case: dict[str, Any]) -> None:
    s = build(case)
    o = s.orders[0]
    a, i = s.accounts[0], s.instruments[0]
    named = [*a["nodes"].tolist(), int(o["trader"]), int(i["issuer"]), int(i["sector"]), int(o["counterparty"]), int(o["venue"]), *(int(i[f]) for f in ("node", "asset_class", "currency", "pair")), *o["shares"].tolist()]
    nodes = [n for n in named if n >= 0]
    inputs = {"v": INPUTS_VERSION, "order": o.tobytes(), "account": a.tobytes(), "instrument": i.tobytes(), "position": s.positions[0].tobytes(), "settings": s.settings[0].tobytes(),
              "nodes": [[s.node_names[n], n, s.nodes[n].tobytes(), [s.rates[w].tobytes() for w in s.nodes["rates"][n] if w >= 0]] for n in nodes]}
    hard = check_order(s.table.ctypes.data, 0)
    assert explain(msgspec.json.decode(encode(inputs)), NAMED)[:2] == (int(hard), int(s.results["soft"][0]))


def test_every_code_is_documented() -> None:
    assert set(MEANING) == set(Check)


def test_a_batch_equals_single_orders() -> None:
    rng = np.random.default_rng(3)
    both = []
    for _ in range(2):
        s = GateState(8, 8, 64, 64, 8, 256)
        for n in range(4):
            s.account(f"A{n}")
            s.accounts["known"][n], s.accounts["nodes"][n] = 1, [s.node("book"), s.node("firm"), *[-1] * (gs.ACCOUNT_NODES - 3), s.node(f"account:{n}")]
            s.instrument(f"I{n}")
            row = s.instruments[n]
            row["known"], row["mid"], row["bid"], row["ask"], row["unit"], row["collar_bps"], row["price_ns"], row["age_max_ns"] = 1, 100, 99, 101, 1, 200, T0, 10**18
        s.settings["positions_ns"] = T0
        s.set_limit("firm", "order_quantity", 100)
        s.set_limit("firm", "order_value", 8_000)
        s.set_rate_limit("book", "message_count", 10**9, 40)
        both.append(s)
    n = 200
    for s in both:
        s.orders["account"][:n], s.orders["instrument"][:n] = rng.integers(0, 5, n), rng.integers(0, 4, n)
        rng = np.random.default_rng(3)
    for f, values in (("account", rng.integers(0, 5, n)), ("instrument", rng.integers(0, 4, n)), ("side", rng.choice([-1.0, 1.0], n)), ("quantity", rng.integers(1, 130, n)),
                      ("price", rng.uniform(97, 103, n)), ("ts_ns", T0 + np.arange(n) * 10**7)):
        for s in both:
            s.orders[f][:n] = values
    for s in both:
        for f in ("trader", "counterparty", "venue", "algo"):
            s.orders[f][:n] = -1
    accepted = check_batch(both[0].table.ctypes.data, 0, n)
    single = [check_order(both[1].table.ctypes.data, k) for k in range(n)]
    assert both[0].results["hard"][:n].tolist() == [int(h) for h in single]
    assert accepted == sum(h == 0 for h in single) > 0
    assert any(int(h) >> Check.MESSAGE_RATE & 1 for h in single)


@given(GAPS, st.sampled_from([1000, 320]))
def test_message_windows_hold_all_that_lies_within_them(gaps_ms: list[int], window_ms: int) -> None:
    s = GateState(1, 1, 1, 4, 2, 1)
    s.window(s.node("x"), window_ms * 1_000_000)
    times, now = [], T0
    for gap in gaps_ms:
        now += gap * 1_000_000
        times.append(now)
        n, _ = count_message(s.rates[0], now, 1.0)
        least = sum(now - t <= window_ms * 1_000_000 for t in times)
        most = sum(now - t < window_ms * 1_000_000 * (1 + 1 / (gs.BUCKETS - 1)) + gs.BUCKETS for t in times)
        assert least <= n <= most


@given(GAPS, st.sampled_from([1000, 320]))
def test_the_outcomes_of_a_window_are_all_that_lie_within_it(gaps_ms: list[int], window_ms: int) -> None:
    ring, times, now, window_ns = Ring(window_ms * 1_000_000), [], T0, window_ms * 1_000_000
    for gap in gaps_ms:
        now += gap * 1_000_000
        times.append(now)
        ring.add(now, rejected=True)
        least, most = (sum(now - t <= w for t in times) for w in (window_ns, window_ns + 2 * gs.bucket_ns(window_ns)))
        assert least <= ring.sums(now).rejects == ring.sums(now).orders <= most


@given(st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from([90.0, 95.0, 100.0, 110.0])), min_size=1, max_size=60), st.sampled_from([1000, 317]))
def test_the_drift_of_a_window_is_that_of_all_prices_within_it(prices: list[tuple[int, float]], window_ms: int) -> None:
    drift, seen, now, window_ns = PriceDrift(1), [], T0, window_ms * 1_000_000
    drift.window_ns[0] = window_ns
    for gap, price in prices:
        now += gap * 1_000_000
        seen.append((now, price))
        low, high = drift.follow(0, price, now)
        within, about = ([p for t, p in seen if now - t <= w] for w in (window_ns, window_ns * 8 // 7))
        assert min(about) <= low <= min(within) and max(within) <= high <= max(about)

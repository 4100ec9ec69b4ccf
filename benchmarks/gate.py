"""The pre-trade gate: one order from Python, batches, the plain-dict twin, NautilusTrader where it is installed; a local gate.

Same orders, same books in every variant; every variant's verdicts are compared before anything is timed.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import ROOT, arguments, finish
from benchmarks.risk import quantiles
from models.gate.book import GateBook
from models.gate.kernel import check_batch, check_order
from models.gate.naive import naive_check
from models.gate.state import FIGURES, INSTRUMENT, METRICS, POSITION, GateState
from schemas.controls import Check
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, Mark, Order, Position

T0 = 1_795_000_000_000_000_000
ACCOUNTS, INSTRUMENTS, MARGIN_RATE = 256, 2048, 0.2
ROLES = ("book", "desk", "strategy", "fund", "firm", "account")


def firm(ring: int, seed: int) -> GateState:
    """Return a gate of 256 accounts and 2,048 instruments with limits on every level, and a ring full of orders."""
    s, rng = GateState(ring=ring), np.random.default_rng(seed)
    for n in range(ACCOUNTS):
        a = s.account(f"A{n}")
        s.accounts["known"][a] = 1
        above = [s.node(x) for x in (f"book:{n // 2}", f"desk:{n // 8}", f"strategy:{n // 32}", f"fund:{n // 64}", "firm", f"account:A{n}")]
        s.accounts["nodes"][a, : len(above)] = above
    for n in range(INSTRUMENTS):
        row, p = s.instruments[s.instrument(f"I{n}")], float(rng.uniform(10, 200))
        for f, v in {"known": 1, "mid": p, "bid": p - 0.01, "ask": p + 0.01, "tick": 0.01, "collar_bps": 100, "collar_ticks": 5, "unit": 1.0, "margin_rate": MARGIN_RATE,
                     "unit_delta": p, "unit_vega": 0.0, "price_ns": T0, "age_max_ns": 10**13, "shortable": 1, "equity": 1,
                     "restricted": n % 50 == 0}.items():
            row[f] = v
        row["node"], row["issuer"], row["sector"] = s.node(f"instrument:I{n}"), s.node(f"issuer:{n // 2}"), s.node(f"sector:{n % 10}")
    s.nodes["exposure_ns"] = s.settings["positions_ns"] = T0
    s.nodes["nav"][: len(s.node_names)] = 1e8
    for name in s.node_names:
        if name.startswith(("account", "book", "desk", "fund", "firm")):
            s.set_limit(name, "gross", 1e7)
            s.set_limit(name, "net", 5e6)
            s.set_limit(name, "margin", 1e7)
    s.set_limit("firm", "order_quantity", 1000)
    s.set_limit("firm", "order_value", 1e5)
    for name in s.node_names:
        if name.startswith("account"):
            s.set_rate_limit(name, "message_count", 10**9, 1e9)
    o = s.orders
    o["account"], o["instrument"] = rng.integers(0, ACCOUNTS, ring), rng.integers(0, INSTRUMENTS, ring)
    o["side"], o["quantity"] = rng.choice([-1.0, 1.0], ring), rng.integers(1, 1200, ring)
    o["price"] = s.instruments["mid"][o["instrument"]] * rng.uniform(0.985, 1.015, ring)
    o["ts_ns"], o["locate"] = T0 + np.arange(ring) * 10_000, 1
    for f in ("trader", "counterparty", "venue", "algo"):
        o[f] = -1
    return s


def as_dicts(s: GateState) -> list[tuple[Any, ...]]:
    """Return the ring's orders and what they meet as plain dicts, one tuple an order."""
    def plain(row: Any) -> dict[str, Any]:
        return {f: row[f].item() for f in row.dtype.names if row[f].ndim == 0}

    window = [{"window_ns": 10**9, "sent": [], "others": (0, 0.0), "limit": {"message_count": 1e9}, "soft": {}}]
    nodes = [{"value": dict(zip(FIGURES, s.nodes["value"][k].tolist(), strict=True)), "limit": dict(zip(METRICS, s.nodes["limit"][k].tolist(), strict=True)),
              "soft": dict.fromkeys(METRICS, math.nan), "state": 0, "nav": float(s.nodes["nav"][k]), "exposure_ns": T0, "windows": window if name.startswith("account") else []} for k, name in enumerate(s.node_names)]
    role = {k: n.partition(":")[0] for k, n in enumerate(s.node_names)}
    settings = {"state": 0, "duplicate_ns": 500_000_000, "exposure_age_ns": 5_000_000_000, "position_age_ns": 5_000_000_000, "positions_ns": T0, "limits_required": True}
    instruments = [plain(s.instruments[k]) | {"tiers": [(math.inf, MARGIN_RATE)]} for k in range(INSTRUMENTS)]
    out = []
    for k in range(len(s.orders)):
        o = plain(s.orders[k])
        i = s.instruments[o["instrument"]]
        under = [*(n for n in s.accounts["nodes"][o["account"]].tolist() if n >= 0), int(i["issuer"]), int(i["sector"]), int(i["node"])]
        position = plain(np.zeros(1, POSITION)[0]) | {"best_buy": -math.inf, "best_sell": math.inf, "long_limit": math.nan, "short_limit": math.nan, "soft_long": math.nan, "soft_short": math.nan}
        out.append((o, {"state": 0}, instruments[o["instrument"]], position, [nodes[n] | {"role": role[n]} for n in under], settings))
    return out


def gate_book() -> tuple[GateBook, int]:
    """Return a gate of 50 accounts and 200 instruments, and the time it stands at."""
    gate = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"))
    gate.positions_hold(T0)
    for n in range(200):
        gate.add_instrument(Instrument(instrument=f"I{n}", asset_class="equity", currency="USD", prior_close=Decimal(100)))
        gate.book.add_mark(Mark(instrument=f"I{n}", window_end=T0, ts_event=T0, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
        gate.set_price(f"I{n}", 99.9, 100.1, 100.0, None, T0, True)
    for n in range(50):
        gate.add_account(Account(account=f"A{n}", book=f"B{n // 2}", desk=f"D{n // 8}", strategy="S", fund=f"F{n // 25}", nav=Decimal(10**7)))
        gate.add_position(Position(account=f"A{n}", instrument=f"I{n}", quantity="100", average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1,
                                   last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, n)))
    for metric, value in (("order_quantity", 10_000), ("order_value", 10**7), ("gross", 10**10)):
        gate.add_limit(Limit(limit_id=metric, node="firm", metric=metric, limit=Decimal(value), version=1, by="b", reason="benchmark"))
    gate.refresh(T0)
    gate.state.settings["duplicate_ns"] = -1
    return gate, T0


def gate_order(k: int) -> Order:
    """Return an order that the gate accepts."""
    return Order(order_id=f"O{k}", account=f"A{k % 50}", trader="t", instrument=f"I{k * 7 % 200}", side="buy" if k % 2 else "sell", type="limit",
                 quantity=Decimal(10), price=Decimal(90 if k % 2 else 110), ts_event=T0, locate_id="L")


def local_gate(orders: int) -> np.ndarray:
    """Return ns from an order as a record to its verdict with inputs, reservation included: the book around the kernel."""
    gate, _ = gate_book()
    took = np.empty(orders)
    for k in range(orders):
        order = gate_order(k)
        begin = time.perf_counter_ns()
        verdict = gate.decide(order, T0 + k * 1_000)
        took[k] = time.perf_counter_ns() - begin
        assert verdict.outcome == "accept", verdict.reasons
        gate.release(order.order_id)
    return took


def run(size: str, seed: int, peers: bool) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    import gc

    ring, rounds = (4_096, 3 if size == "smoke" else 30)
    s = firm(ring, seed)
    table = s.table.ctypes.data
    accepted = check_batch(table, 0, ring)
    verdicts = s.results["hard"].copy()
    same = as_dicts(firm(ring, seed))[:4_096]
    for k, case in enumerate(same):
        hard, _ = naive_check(*case)
        theirs = sum(1 << c for c in hard - {Check.DUPLICATE_ORDER})
        assert theirs == int(verdicts[k]) & ~(1 << Check.DUPLICATE_ORDER), k
    s.settings["duplicate_ns"] = -1  # the ring is checked again and again
    gc.collect()
    gc.disable()
    single = np.empty(rounds * 20_000)
    mask = ring - 1
    for k in range(len(single)):
        begin = time.perf_counter_ns()
        check_order(table, k & mask)
        single[k] = time.perf_counter_ns() - begin
    batch = min(_timed(lambda: check_batch(table, 0, ring)) for _ in range(rounds)) / ring
    naive = np.empty(len(same))
    for k, case in enumerate(same):
        begin = time.perf_counter_ns()
        naive_check(*case)
        naive[k] = time.perf_counter_ns() - begin
    book = local_gate(2_000 if size == "smoke" else 20_000)
    gc.enable()
    one = quantiles(single / 1e3)
    return {"bench": "gate", "checks": len(Check), "accepted_share": accepted / ring, "kernel_us": one, "kernel_p50_us": one["p50"], "kernel_p99_us": one["p99"],
            "batch_ns_per_order": batch, "batch_orders_per_s": round(1e9 / batch), "plain_dicts_us": quantiles(naive / 1e3),
            "ratio_plain_dicts": float(np.median(naive) / np.median(single)), "gate_book_us": quantiles(book / 1e3), "nautilus_us": nautilus(peers),
            "instrument_bytes": INSTRUMENT.itemsize, "result_sha256": hashlib.sha256(verdicts.tobytes()).hexdigest()[:16]}


def nautilus(peers: bool) -> dict[str, float] | str:
    """Return what NautilusTrader's RiskEngine takes in the same run, us: its own script in its own environment."""
    script = ROOT.parent / "shared" / "peers" / "kernels" / "a_nautilus.py"
    python = Path(os.environ.get("PEERS_TMP", "/var/tmp/peers")) / "nt" / "bin" / "python"
    if not peers or not script.exists() or not python.exists():
        return f"not run: expected {script.name} in shared/peers and an environment nt with nautilus_trader in $PEERS_TMP"
    done = subprocess.run([python, script], cwd=script.parent, capture_output=True, text=True, timeout=300,
                          env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    found = re.search(r"^execute\(SubmitOrder\), accepted.* p50 (\d+) p99 (\d+)", done.stdout, re.M)
    whole = re.search(r"^build order .* accepted .* p50 (\d+) p99 (\d+)", done.stdout, re.M)
    if found is None or whole is None:
        return f"gave no result: {done.stderr[-300:]}"
    (p50, p99), (built50, built99) = (map(float, m.groups()) for m in (found, whole))
    return {"p50": p50 / 1e3, "p99": p99 / 1e3, "with_order_and_bus_p50": built50 / 1e3, "with_order_and_bus_p99": built99 / 1e3}


def _timed(work: Any) -> float:
    begin = time.perf_counter_ns()
    work()
    return float(time.perf_counter_ns() - begin)


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    finish(args, run(args.size, args.seed, args.peers and args.size == "real"))


if __name__ == "__main__":
    main()

"""Several risk workers: each states its own funds, one of them what spans funds, and nobody ever states a part as the whole."""

from __future__ import annotations

import asyncio
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka.structs import TopicPartition

from app.control import publish
from app.reference_files import publish_reference
from schemas.codec import decoder_of, encode
from schemas.nodes import MODELS_SUFFIX, Risk
from schemas.records import Account, Alert, AsOf, Fifo, Instrument, Limit, Mark, Position
from schemas.topics import TOPICS
from tables.kafka import create_topics, owner_partition
from tables.restore import read_range
from tests.integration.harness import Installation, Process
from tests.integration.test_system import wait_for

pytestmark = pytest.mark.kafka
NAMES = [f"X{k}" for k in range(6)]
PRICES = {name: 10.0 + 7 * k for k, name in enumerate(NAMES)}
#: a desk lies in two funds, a dealer in all, a book and a strategy in one
ACCOUNTS = [Account(account=f"A{k:02d}", book=f"B{k % 12}", desk=f"D{k % 12 // 4}", strategy=f"S{k % 6}", fund=f"FUND{k % 6}",
                    dealer=f"dealer-{k // 6}") for k in range(24)]
DAYS = 80
Figures = tuple[float, float, int]


def holdings(seed: int) -> dict[tuple[str, str], int]:
    rng = np.random.default_rng(seed)
    return {(a.account, name): int(rng.integers(-50, 50)) * 10 + 5 for a in ACCOUNTS for name in NAMES}


async def send(made: Installation, held: dict[tuple[str, str], int], offset: int) -> None:
    """Publish rows of positions, each to the partition of its fund."""
    fund = {a.account: a.fund for a in ACCOUNTS}
    producer = made.settings.client().producer()
    await producer.start()
    for (account, name), quantity in held.items():
        row = Position(account=account, instrument=name, quantity=str(quantity), average_price=PRICES[name], realised_pnl=0.0, fees={},
                       currency="USD", trades=1, last_ts_event=1, fifo=Fifo(0.0, PRICES[name], 1), break_even_price=PRICES[name],
                       as_of=AsOf(0, offset))
        await producer.send(made.settings.topics()["positions"], encode(row), f"{account}|{name}".encode(),
                            owner_partition(fund[account], made.settings.partitions))
    await producer.flush()
    await producer.stop()


async def begin(made: Installation, held: dict[tuple[str, str], int], history: Path, gross: float) -> None:
    s = made.settings
    await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
    shares = [Instrument(instrument=n, asset_class="equity", currency="USD", issuer=f"issuer-{n}") for n in NAMES]
    await publish_reference(s.client(), s.topics(), shares, ACCOUNTS)
    for name, price in PRICES.items():
        await publish(s, "marks", name, Mark(instrument=name, window_end=1_000, ts_event=1_000, bid=price - 1, ask=price + 1, mid=price,
                                             last=price, quality="good"))
    for node in ("firm", "dealer:dealer-1", "fund:FUND3"):
        await publish(s, "limits", f"L-{node}", Limit(limit_id=f"L-{node}", node=node, metric="gross", limit=gross, version=1, by="rita",
                                                      reason="a test"))
    await send(made, held, 1)
    moves = np.random.default_rng(5).normal(0.0, 0.02, (DAYS, len(NAMES)))
    with history.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", *NAMES])
        for day, row in enumerate(100.0 * np.exp(np.cumsum(moves, axis=0))):
            writer.writerow([f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}", *row.tolist()])


def expected(held: dict[tuple[str, str], int]) -> dict[str, Figures]:
    """Return (net, gross, positions) by node."""
    out: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    place = {a.account: (f"book:{a.book}", f"desk:{a.desk}", f"strategy:{a.strategy}", f"fund:{a.fund}", "firm",
                         f"account:{a.account}", f"dealer:{a.dealer}") for a in ACCOUNTS}
    for (account, name), quantity in held.items():
        for node in (*place[account], "currency:USD", "asset_class:equity", f"issuer:issuer-{name}"):
            out[node][0] += quantity * PRICES[name]
            out[node][1] += abs(quantity) * PRICES[name]
            out[node][2] += 1
    return {node: (round(net, 6), round(gross, 6), int(n)) for node, (net, gross, n) in out.items()}


async def log_of(made: Installation, topic: str) -> list[tuple[str, bytes]]:
    """Return all that was ever said on a topic that is kept for less than its compaction."""
    found: list[tuple[str, bytes]] = []
    (declared,) = [t for t in TOPICS if t.name == topic]
    name, count = made.settings.topics()[topic], made.settings.partitions if declared.partitions == "data" else 1
    await read_range(made.settings.client(), {TopicPartition(name, p): 0 for p in range(count)}, lambda batch: found.extend(
        ((k or b"").decode(), v) for k, v in zip(batch.keys, batch.values, strict=True) if v is not None))
    return found


def said(made: Installation) -> dict[str, list[Risk]]:
    out: dict[str, list[Risk]] = defaultdict(list)
    decode = decoder_of(Risk).decode
    for key, value in asyncio.run(log_of(made, "risk")):
        out[key].append(decode(value))
    return out


def figures(risk: Risk) -> Figures:
    return round(risk.exposure.net or 0.0, 6), round(risk.exposure.gross or 0.0, 6), risk.exposure.positions


def owned_by(worker: Process) -> set[int]:
    """Return the partitions a worker said last it owns."""
    parts = [line.split()[-1] for line in worker.lines if line.startswith("READY")][-1]
    return {int(p) for p in parts.split(",") if p.isdigit()}


def test_the_firm_is_whole_with_two_workers_and_through_the_loss_of_either(made: Installation, tmp_path: Path) -> None:
    held, history = holdings(1), tmp_path / "history.csv"
    first = expected(held)
    asyncio.run(begin(made, held, history, 0.9 * first["firm"][1]))
    workers = {w: made.worker("risk", w, DESKRISK_INSTANCE=f"risk-{w}", DESKRISK_HISTORY=str(history)).wait_ready() for w in ("a", "b")}
    wait_for(lambda: len(owned_by(workers["a"])) == len(owned_by(workers["b"])) == 2)
    lead = next(w for w, p in workers.items() if 0 in owned_by(p))
    funds = {w: {f"fund:{a.fund}" for a in ACCOUNTS if owner_partition(a.fund, 4) in owned_by(p)} for w, p in workers.items()}
    assert funds["a"] and funds["b"] and not funds["a"] & funds["b"]
    wait_for(lambda: "firm" + MODELS_SUFFIX in asyncio.run(made.newest("risk")))

    # a trade in a fund of the worker that is not the lead reaches the fund and what spans funds
    other = next(w for w in workers if w != lead)
    moved = next(a for a in ACCOUNTS if f"fund:{a.fund}" in funds[other])
    changed = held | {(moved.account, "X2"): held[moved.account, "X2"] + 1_000}
    second = expected(changed)
    asyncio.run(send(made, {(moved.account, "X2"): changed[moved.account, "X2"]}, 2))
    nodes = (f"fund:{moved.fund}", f"desk:{moved.desk}", f"dealer:{moved.dealer}", "firm", "issuer:issuer-X2")

    def newest(want: dict[str, Figures]) -> bool:
        rows = asyncio.run(made.newest("risk"))
        return all(round(rows[n]["exposure"]["net"], 6) == want[n][0] for n in nodes)
    wait_for(lambda: newest(second))

    # the lead is lost: the other one takes over all; then it comes back
    workers[lead].kill()
    wait_for(lambda: len(owned_by(workers[other])) == 4)
    changed[moved.account, "X2"] += 1_000
    third = expected(changed)
    asyncio.run(send(made, {(moved.account, "X2"): changed[moved.account, "X2"]}, 3))
    wait_for(lambda: newest(third))
    workers[lead] = made.worker("risk", lead, DESKRISK_INSTANCE=f"risk-{lead}", DESKRISK_HISTORY=str(history)).wait_ready()
    wait_for(lambda: len(owned_by(workers[lead])) == len(owned_by(workers[other])) == 2)
    changed[moved.account, "X2"] += 1_000
    fourth = expected(changed)
    asyncio.run(send(made, {(moved.account, "X2"): changed[moved.account, "X2"]}, 4))
    wait_for(lambda: newest(fourth))
    wait_for(lambda: figures(said(made)["firm" + MODELS_SUFFIX][-1]) == fourth["firm"])

    # whoever reads the log, at whatever time, has never been told a part
    log = said(made)
    assert set(first) <= set(log), set(first) - set(log)
    for key, records in log.items():
        node = key.removesuffix(MODELS_SUFFIX)
        known = {state[node] for state in (first, second, third, fourth)}
        wrong = [figures(r) for r in records if figures(r) not in known]
        assert not wrong, (key, wrong[:3], known)
    check_var(log["firm" + MODELS_SUFFIX][-1], changed, history)

    # a limit on what spans funds is watched, and by one worker at a time
    alerts = [decoder_of(Alert).decode(v) for _, v in asyncio.run(log_of(made, "alerts"))]
    breaches = [a for a in alerts if a.kind == "breach" and a.node == "firm"]
    assert 1 <= len(breaches) <= 3, breaches  # a new lead says it again
    assert not [a for a in alerts if a.node == "fund:FUND3" and a.kind == "breach"]


def check_var(firm: Risk, held: dict[tuple[str, str], int], history: Path) -> None:
    """The firm's historical VaR is that of all funds together: the worst day but floor(n/100) of its whole holdings."""
    prices = np.loadtxt(history, delimiter=",", skiprows=1, usecols=range(1, 1 + len(NAMES)))
    returns = prices[1:] / prices[:-1] - 1.0
    money = np.array([sum(q for (_, n), q in held.items() if n == name) * PRICES[name] for name in NAMES])
    losses = np.sort(-(returns @ money))[::-1]
    models: dict[str, Any] = firm.models or {}
    assert models["var_hist"]["n"] == len(returns) and models["var_hist"]["quality"] == "good"
    assert models["var_hist"]["var_99"] == pytest.approx(losses[int(len(losses) * 0.01)], rel=1e-9)
    assert models["leverage"] and models["var_mc"]["quality"] == "good"

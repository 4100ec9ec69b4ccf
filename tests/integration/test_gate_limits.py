"""Limits that rest on what is held and works, through the running stages: margin, shares of issuers, windows, collars; and their alerts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from app.control import acknowledge, current, set_limit, set_state
from app.reference_files import publish_reference
from schemas.records import Alert, Control, MarginTier
from tests.integration.harness import ACCOUNTS, INSTRUMENTS, ROOT, Installation
from tests.integration.test_order_path import by_id, decisions, keep_quoting, open_the_gate, order, send
from tests.support.fork_server import run_command
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
REASON = "test of limits on figures"
MINE = {"account": "ACC-005", "instrument": "I03"}


async def limited(made: Installation, *limits: tuple[str, str, str, float, dict[str, Any]]) -> None:
    for limit_id, node, metric, value, more in limits:
        await set_limit(made.settings, {"limit_id": limit_id, "node": node, "metric": metric, "limit": value, "reason": REASON} | more, "risk-1")


async def alerts(made: Installation, wanted: set[tuple[str, str]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = {(a["limit_id"], a["kind"]) for a in await made.alerts()}
        if wanted <= found:
            return
        assert time.monotonic() < deadline, (wanted, found)
        await asyncio.sleep(0.3)


def test_margin_shares_windows_and_collars_hold_an_order_against_what_is_held_and_works(made: Installation) -> None:
    tiers = [MarginTier(up_to=Decimal(1_000), initial=Decimal("0.1"), maintenance=Decimal("0.05")), MarginTier(initial=Decimal("0.5"), maintenance=Decimal("0.25"))]
    named = [msgspec.structs.replace(i, issuer="ACME", sector="tech", margin_tiers=tiers) if i.instrument == "I03" else i for i in INSTRUMENTS]
    owned = [msgspec.structs.replace(a, nav=Decimal(1_000)) for a in ACCOUNTS]
    asyncio.run(made.create())
    asyncio.run(publish_reference(made.settings.client(), made.settings.topics(), named, owned))
    for process in [made.worker(role, role) for role in ("positions", "marks", "risk", "gate")]:
        process.wait_ready()

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await limited(made, ("MA", "account:ACC-005", "margin", 850, {}), ("MU", "account:ACC-005", "margin_maintenance", 310, {}),
                      ("CF", "fund:F1", "concentration", 0.14, {}), ("W1", "account:ACC-007", "message_count", 2, {"window_ms": 2_000}),
                      ("W2", "account:ACC-007", "message_count", 3, {"window_ms": 120_000}), ("CB", "instrument:I05", "collar_bps", 20, {}))
        await send(made, "trades", [{"trade_id": "T1", "side": "buy", "quantity": "20", "price": "100", "trader": "t1", "ts_event": time.time_ns()} | MINE])
        await asyncio.sleep(1.5)  # 2,000 held: 600 of margin, a tenth of the fund's 20,000
        await send(made, "orders", [order("m1", quantity=4, price=99.5, **MINE), order("m2", quantity=2, price=99.4, **MINE), order("m3", quantity=24, price=101, side="sell", **MINE)])
        await decisions(made, 3)
        await send(made, "orders", [order("c1", "ACC-007", quantity=3, price=99.3, instrument="I03"), order("c2", "ACC-007", quantity=2, price=99.2, instrument="I03"),
                                    order("b1", quantity=1, price=100.3, instrument="I05"), order("b2", quantity=2, price=100.1, instrument="I05")])
        got = by_id(await decisions(made, 7))
        reasons = {k: [(r.code, r.node, r.measured, r.limit_id) for r in d.reasons] for k, d in got.items()}
        assert reasons["m1"] == reasons["m3"] == reasons["c1"] == reasons["b2"] == []
        assert reasons["m2"] == [("MARGIN", "account:ACC-005", "900", "MA")], "what works counts"
        assert reasons["c2"] == [("CONCENTRATION", "fund:F1/issuer:ACME", "0.145", "CF")]
        assert [code for code, *_ in reasons["b1"]] == ["PRICE_COLLAR"]
        await send(made, "orders", [order(f"w{k}", "ACC-007", quantity=k + 1, price=99 - k, instrument="I04") for k in range(2)])
        got = by_id(await decisions(made, 9))
        # two messages before: in two seconds, and in two minutes
        assert {got[k].reasons[0].limit_id for k in ("w0", "w1") if got[k].reasons} <= {"W1", "W2"} and got["w1"].reasons[0].code == "MESSAGE_RATE"
        await send(made, "trades", [{"trade_id": "T2", "side": "buy", "quantity": "4", "price": "100", "trader": "t1", "order_id": "m1", "ts_event": time.time_ns()} | MINE])
        await alerts(made, {("CF", "approach"), ("MU", "breach")})
        stop.set()
        await quoting

    asyncio.run(run())
    done = run_command("decisions", "explain", "c2", **made.environment())
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and shown["reproduced"] is True and shown["reasons"][0]["code"] == "CONCENTRATION"


async def until_measured(made: Installation, node: str, var: float) -> None:
    """Wait until the risk stage has said the VaR of a node, and of instruments alone, and a gate can have heard it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        said, alone = await made.newest("risk"), await made.newest("unit-vars")
        measured = ((said.get(node) or {}).get("models") or {}).get("var_hist") or {}
        if alone and measured.get("quality") == "good" and measured["var_99"] == pytest.approx(var, rel=1e-6):
            break
        assert time.monotonic() < deadline, (measured, var, alone)
        await asyncio.sleep(0.5)
    await asyncio.sleep(2.0)


def test_var_is_what_is_held_what_works_and_what_the_order_has_alone(made: Installation, tmp_path: Path) -> None:
    """Measured by the risk stage, said to the gate: a hedged fund has no room for what its hedge does not cover."""
    history, moves = tmp_path / "history.csv", np.random.default_rng(7).normal(0.0, 1.0, (300, 2)) * (0.001, 0.03)
    days = 100.0 * np.exp(np.cumsum(moves, axis=0))
    history.write_text("\n".join(["date,I05,I03", *(f"2025-{1 + k // 28:02d}-{1 + k % 28:02d},{a!r},{b!r}" for k, (a, b) in enumerate(days.tolist()))]))
    returns = days[1:] / days[:-1] - 1.0
    calm, wild = (max(np.sort(-side)[::-1][int(len(returns) * 0.01)] for side in (x, -x)) * 100.0 for x in returns.T)
    calm_long = np.sort(-returns[:, 0])[::-1][int(len(returns) * 0.01)] * 100.0
    asyncio.run(made.create())
    for process in [made.worker(role, role, **({"DESKRISK_HISTORY": str(history)} if role == "risk" else {})) for role in ("positions", "marks", "risk", "gate")]:
        process.wait_ready()
    fund = "fund:F1"

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await send(made, "trades", [{"trade_id": "T1", "side": "buy", "quantity": "100", "price": "100", "trader": "t1", "ts_event": time.time_ns()} | MINE | {"instrument": "I05"}])
        await limited(made, ("VF", fund, "var_hist", 100 * calm_long + 5.5 * wild, {}))
        await until_measured(made, fund, 100 * calm_long)
        mine = {"account": "ACC-005"}
        await send(made, "orders", [order("v1", instrument="I03", quantity=5, price=99.9, **mine)])
        await decisions(made, 1)
        await send(made, "orders", [order("v2", instrument="I03", quantity=1, price=99.8, **mine), order("v3", instrument="I05", quantity=60, price=100.1, side="sell", **mine),
                                    order("v4", instrument="I07", quantity=1, price=99.9, **mine), order("v5", account="ACC-004", instrument="I07", quantity=1, price=99.9)])
        got = by_id(await decisions(made, 5))
        reasons = {k: [(r.code, r.node, r.limit_id) for r in d.reasons] for k, d in got.items()}
        assert reasons == {"v1": [], "v2": [("VAR", fund, "VF")], "v3": [], "v4": [("VAR", fund, "VF")], "v5": []}, "I07 has no history; F0 has no limit"
        assert float(got["v2"].reasons[0].measured) == pytest.approx(100 * calm_long + 6 * wild, rel=1e-6) and got["v4"].reasons[0].measured == "nan"
        assert got["v1"].effect["var_hist"] == pytest.approx(5 * wild, rel=1e-6) and "var_hist" not in got["v4"].effect
        assert calm < wild / 10
        stop.set()
        await quoting

    asyncio.run(run())


def test_limits_of_a_watched_file_stand_at_the_gate_and_go_with_it(made: Installation) -> None:
    """`limits load --watch`: a change of the file is a version of the limit; a wrong one changes nothing; a removed row ends it."""
    asyncio.run(made.create())
    for process in [made.worker(role, role) for role in ("positions", "marks", "gate")]:
        process.wait_ready()
    made.settings.data_dir.mkdir(exist_ok=True)
    path = made.settings.data_dir / "limits.yaml"
    rows = [{"limit_id": "Q", "node": "firm", "metric": "order_quantity", "limit": 1_000}, {"limit_id": "V", "node": "firm", "metric": "order_value", "limit": 1e6}]

    def write(*more: dict[str, Any]) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps([*rows, *more]))
        beside.rename(path)

    async def refused_with(codes: list[str], numbers: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            k = next(numbers)
            await send(made, "orders", [order(f"f{k}", quantity=50, price=99 - k % 50 * 0.01)])
            found = by_id(await decisions(made, k + 1))
            if [r.code for r in found[f"f{k}"].reasons] == codes:
                return
            assert time.monotonic() < deadline, found[f"f{k}"].reasons

    async def run() -> None:
        stop, numbers = asyncio.Event(), iter(range(10_000))
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await refused_with([], numbers)
        write({"limit_id": "T", "node": "trader:t1", "metric": "order_quantity", "limit": 10})
        await refused_with(["MAX_QUANTITY"], numbers)
        write({"limit_id": "T", "node": "trader:t1", "metric": "order_quantity", "limit": "ten"})
        await asyncio.sleep(1.5)
        await refused_with(["MAX_QUANTITY"], numbers)
        write({"limit_id": "T", "node": "trader:t1", "metric": "order_quantity", "limit": 60})
        await refused_with([], numbers)
        write({"limit_id": "T", "node": "trader:t1", "metric": "order_quantity", "limit": 20})
        await refused_with(["MAX_QUANTITY"], numbers)
        write()
        await refused_with([], numbers)
        stop.set()
        await quoting

    write()
    watch = subprocess.Popen([sys.executable, "-m", "app", "limits", "load", str(path), "--watch", "--prune", "--by", "ann", "--reason", "of the file of limits"], cwd=ROOT,
                             env=os.environ | made.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        asyncio.run(run())
    finally:
        watch.terminate()
        said, wrong = watch.communicate(timeout=20)
    loaded = [json.loads(line) for line in said.splitlines()]
    assert [(x["set"], x["removed"], x["same"]) for x in loaded] == [(["Q", "V"], [], 0), (["T"], [], 2), (["T"], [], 2), (["T"], [], 2), ([], ["T"], 2)]
    assert "limits.yaml:1: limit: expected a decimal number, was 'ten'" in wrong and watch.returncode == 0


def test_a_rate_trips_a_breaker_that_a_kill_does_not_forget_and_soft_limits_are_told(made: Installation) -> None:
    """Orders beyond a rate are refused, then the trader is halted; a killed gate raises nothing anew, and what is lifted too early trips again."""
    asyncio.run(made.create())
    processes = {role: made.worker(role, role) for role in ("marks", "positions", "gate")}
    for process in processes.values():
        process.wait_ready()

    async def state(wanted: str, rev: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (held := (await current(made.settings, "controls", Control)).get("trader:t1")) is None or (held.state, held.rev) != (wanted, rev):
            assert time.monotonic() < deadline, held
            await asyncio.sleep(0.2)

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await limited(made, ("R", "account:ACC-001", "message_count", 6, {"window_ms": 60_000}), ("H", "trader:t1", "message_count", 8, {"window_ms": 300_000, "action": "halt"}),
                      ("S", "desk:D1", "order_quantity", 5, {"mode": "soft"}))
        await asyncio.sleep(1.5)
        await send(made, "orders", [order(f"r{k}", quantity=1 + k, price=99 - k) for k in range(9)])
        got = by_id(await decisions(made, 9))
        assert [k for k in range(9) if got[f"r{k}"].outcome == "accept"] == list(range(6)) and got["r6"].reasons[0].limit_id == "R"
        await state("halted", 1)
        await alerts(made, {("R", "breach"), ("H", "breach"), ("S", "soft")})
        raised = await made.alerts()
        assert next(a["note"] for a in raised if a["kind"] == "soft") == "order r5 accepted above a soft limit"
        (breach,) = [msgspec.convert(a, Alert) for a in raised if (a["limit_id"], a["kind"]) == ("H", "breach")]
        await acknowledge(made.settings, breach, "rita", "seen")
        processes["gate"].kill()
        made.worker("gate", "gate").wait_ready()
        await asyncio.sleep(2.0)
        assert [a["ack_by"] for a in await made.alerts() if (a["limit_id"], a["kind"]) == ("H", "breach")] == [None, "rita"], "nothing is raised anew"
        await set_state(made.settings, "trader:t1", "active", "rita", "resumed while it is still above")
        await state("halted", 3)
        stop.set()
        await quoting

    asyncio.run(run())

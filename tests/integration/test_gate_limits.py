"""Limits that rest on what is held and works, through the running stages: margin, shares of issuers, windows, collars; and their alerts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from app.control import current, set_limit
from app.reference_files import publish_reference
from schemas.records import Alert, MarginTier
from tests.integration.harness import ACCOUNTS, INSTRUMENTS, ROOT, Installation
from tests.integration.test_order_path import by_id, decisions, keep_quoting, open_the_gate, order, send

pytestmark = pytest.mark.kafka
REASON = "test of limits on figures"
MINE = {"account": "ACC-005", "instrument": "I03"}


async def limited(made: Installation, *limits: tuple[str, str, str, float, dict[str, Any]]) -> None:
    for limit_id, node, metric, value, more in limits:
        await set_limit(made.settings, {"limit_id": limit_id, "node": node, "metric": metric, "limit": value, "reason": REASON} | more, "risk-1")


async def alerts(made: Installation, wanted: set[tuple[str, str]]) -> None:
    deadline = time.monotonic() + 20.0
    while True:
        found = {(a.limit_id, a.kind) for a in (await current(made.settings, "alerts", Alert)).values()}
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
    done = subprocess.run([sys.executable, "-m", "app", "decisions", "explain", "c2"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
                          env=os.environ | made.environment())
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and shown["reproduced"] is True and shown["reasons"][0]["code"] == "CONCENTRATION"

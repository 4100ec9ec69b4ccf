"""The start-of-day roll on the deciding broker: closes frozen, openings right, P&L of the day from there."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from app.recovery import Refused, rebuild
from app.roll import roll
from app.verify import run_verify
from tables.kafka import owner_partition
from tests.integration.harness import Installation, Upstream

pytestmark = pytest.mark.kafka
S = 1_000_000_000


def test_what_is_late_lands_in_the_day_before_through_restart_and_rebuild(made: Installation) -> None:
    async def run() -> None:
        await made.create()
        worker = made.worker().wait_ready()
        async with Upstream(made, 31) as upstream:
            await upstream.send(800)
            at = upstream._t0 + 600_000_000  # 600 trades were made by then, most of them
            await asyncio.sleep(1)
            await made.quiesce()
            report = await roll(made.settings, at, False, "ops", "test of the roll")
            assert report["accounts"] == 40 and report["closes"] == 0
            with pytest.raises(Refused, match="expected a time in the past"):
                await roll(made.settings, time.time_ns() + 60 * S, False, "ops", "test of the roll")
            with pytest.raises(Refused, match="no-closes"):
                await roll(made.settings, time.time_ns() - 600 * S, True, "ops", "test of the roll")
            worker.kill()
            old = upstream.sent[10]
            upstream.more = {}
            late = [dict(upstream.sent[5], trade_id="late-1"),
                    dict(old, trade_id="bust-1", action="bust", ref_trade_id=old["trade_id"])]
            for t in late:
                await upstream._producer.send_and_wait(
                    made.settings.topics()["trades"], json.dumps(t).encode(), t["account"].encode(),
                    owner_partition(t["account"], made.settings.partitions))
            worker = made.worker(folder="b").wait_ready()
            await upstream.send(100)
            await made.quiesce()
            assert (await run_verify(made.settings))["ok"]

            counted = [t for t in [*upstream.sent, late[0]] if t["ts_event"] < at and t is not old]
            expected: dict[str, int] = {}
            for t in counted:
                key = f"{t['account']}|{t['instrument']}"
                expected[key] = expected.get(key, 0) + int(t["quantity"]) * (1 if t["side"] == "buy" else -1)
            for _ in range(2):
                assert worker.stop() == 0
                rows = await made.newest("positions")
                assert {r["opening_kind"] for r in rows.values()} == {"roll"}
                assert {k: int(r["opening_quantity"]) for k, r in rows.items()} == {k: expected.get(k, 0) for k in rows}
                await asyncio.sleep(made.settings.session_timeout_s + 1)
                assert (await rebuild(made.settings, True, "ops", "test of the roll"))["swapped"]
                worker = made.worker(folder="c").wait_ready()
                await asyncio.sleep(1)
            assert worker.stop() == 0
    asyncio.run(run())


def test_closes_are_frozen_and_the_day_begins_at_zero(made: Installation) -> None:
    async def run() -> None:
        await made.create()
        workers = [made.worker(role, folder=role) for role in ("positions", "marks", "risk")]
        for worker in workers:
            worker.wait_ready()
        topics, n = made.settings.topics(), made.settings.partitions
        producer = made.settings.client().producer()
        await producer.start()

        async def quote(price: float) -> None:
            for name in ("I00", "I01"):
                tick = {"instrument": name, "bid": price - 1, "ask": price + 1, "ts_event": time.time_ns()}
                await producer.send_and_wait(topics["ticks"], json.dumps(tick).encode(), name.encode(),
                                             owner_partition(name, n))

        async def day_of(node: str, wanted: float) -> None:
            day = None
            for _ in range(60):
                await quote(price)
                await asyncio.sleep(0.5)
                row = (await made.newest("risk")).get(node)
                day = row and row["pnl"]["day"]
                if day == pytest.approx(wanted):
                    return
            raise AssertionError(f"{node}: day expected {wanted}, was {day}")

        price = 100.0
        await quote(price)
        for k, (name, quantity, paid) in enumerate([("I00", 100, 90.0), ("I01", -50, 105.0)]):
            trade = {"trade_id": f"r{k}", "account": "ACC-000", "instrument": name, "quantity": str(abs(quantity)),
                     "side": "buy" if quantity > 0 else "sell", "price": str(paid), "ts_event": time.time_ns()}
            await producer.send_and_wait(topics["trades"], json.dumps(trade).encode(), b"ACC-000",
                                         owner_partition("ACC-000", n))
        await day_of("account:ACC-000", 100 * 10 + 50 * 5)
        report = await roll(made.settings, time.time_ns() - S // 100, True, "ops", "test of the roll")
        assert report["closes"] == 2 and len(report["without_close"]) == 11
        instruments = await made.newest("reference.instruments")
        assert float(instruments["I00"]["prior_close"]) == 100.0
        await day_of("account:ACC-000", 0.0)
        price = 103.0
        await day_of("account:ACC-000", 100 * 3 - 50 * 3)
        await producer.stop()
        for worker in workers:
            assert worker.stop(30) == 0
    asyncio.run(run())

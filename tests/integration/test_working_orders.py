"""Working orders through all stages: positions that stand still, executions that come twice, replaces, ends, kills."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.brokers import Broker
from app.control import set_limit
from schemas.records import Decision
from tests.integration.harness import Installation
from tests.integration.test_order_path import (
    REASON,
    by_id,
    decisions,
    keep_quoting,
    made,
    open_the_gate,
    order,
    send,
    start,
)

pytestmark = pytest.mark.kafka
__all__ = ["Broker", "Iterator", "made"]
BUY = {"account": "ACC-003", "instrument": "I01"}


@asynccontextmanager
async def open_market(made: Installation) -> Any:
    """Prices come, and account ACC-003 may hold up to 100 of I01."""
    await open_the_gate(made)
    stop = asyncio.Event()
    quoting = asyncio.create_task(keep_quoting(made, stop))
    await set_limit(made.settings, {"limit_id": "PL", "node": "account:ACC-003", "instrument": "I01", "metric": "position_long", "limit": 100, "reason": REASON}, "r")
    await asyncio.sleep(1.5)
    yield
    stop.set()
    await quoting


def fill(trade_id: str, order_id: str, quantity: float) -> dict[str, Any]:
    return {"trade_id": trade_id, "order_id": order_id, "side": "buy", "price": "99", "quantity": str(quantity), "trader": "t1", "ts_event": time.time_ns(), **BUY}


def measured(decision: Decision) -> dict[str, str]:
    return {r.code: r.measured for r in decision.reasons}


def test_positions_that_stand_still_close_the_gate_and_an_execution_counts_once_whatever_happens(made: Installation) -> None:
    positions, *_ = start(made, "positions", "marks", "risk", "gate")

    async def run() -> None:
        nonlocal positions
        async with open_market(made):
            await send(made, "orders", [order("a1", quantity=60, price=99, **BUY), order("a2", quantity=1, price=98, **BUY)])
            assert {k: d.outcome for k, d in by_id(await decisions(made, 2)).items()} == {"a1": "accept", "a2": "accept"}
            await asyncio.sleep(9.0)  # statements of how far positions are become a rhythm
            positions.kill()
            twice = fill("F1", "a1", 20)
            await send(made, "trades", [twice, twice])
            await asyncio.sleep(14.0)
            # nobody knows what else was traded: only cancels pass; what was executed still counts with its order
            await send(made, "orders", [order("b1", quantity=41, price=97, **BUY), order("b2", action="cancel", ref_order_id="a2", **BUY)])
            got = by_id(await decisions(made, 4))
            assert got["b1"].outcome == "reject" and measured(got["b1"]).keys() == {"POSITION_LONG", "STALE_POSITION"} and got["b2"].outcome == "accept"
            assert float(measured(got["b1"])["STALE_POSITION"]) > 10_000 and measured(got["b1"])["POSITION_LONG"] == "102"
            assert {a["metric"] for a in await made.alerts() if a["kind"] == "stale"} == {"positions"}
            positions = made.worker("positions", "positions")
            await asyncio.to_thread(positions.wait_ready)
            await asyncio.sleep(2.0)
            await send(made, "orders", [order("c1", quantity=41, price=96, **BUY), order("c2", quantity=40, price=95, **BUY)])
            got = by_id(await decisions(made, 6))
            assert measured(got["c1"]) == {"POSITION_LONG": "101"} and got["c2"].outcome == "accept"
            assert {a["metric"] for a in await made.alerts() if a["kind"] == "clear"} == {"positions"}

    asyncio.run(run())


def test_a_replaced_order_is_one_order_by_all_its_ids_through_kills_of_the_gate(made: Installation) -> None:
    start(made, "positions", "marks")
    (gate,) = start(made, "gate")

    async def kill_gate() -> None:
        nonlocal gate
        gate.kill()
        gate = made.worker("gate", "gate")
        await asyncio.to_thread(gate.wait_ready)

    async def run() -> None:
        async with open_market(made):
            await send(made, "orders", [order("a1", quantity=100, price=99, **BUY)])
            await decisions(made, 1)
            await send(made, "trades", [fill("F1", "a1", 40)])
            await asyncio.sleep(1.5)
            # a better price for what is left of it: within the limit, since 40 of the 100 are in the position
            await send(made, "orders", [order("a2", quantity=100, price=99.5, action="replace", ref_order_id="a1", **BUY)])
            assert by_id(await decisions(made, 2))["a2"].outcome == "accept"
            await kill_gate()
            await send(made, "trades", [fill("F2", "a1", 10)])  # it crossed the replace at the venue
            await asyncio.sleep(1.5)
            await kill_gate()
            await send(made, "orders", [order("b1", quantity=1, price=98, **BUY), order("a3", quantity=80, price=99, action="replace", ref_order_id="a1", **BUY),
                                        order("b2", quantity=21, price=97, **BUY), order("b3", quantity=20, price=96, **BUY)])
            got = by_id(await decisions(made, 6))
            assert measured(got["b1"]) == {"POSITION_LONG": "101"} and got["a3"].outcome == "accept"
            assert measured(got["b2"]) == {"POSITION_LONG": "101"} and got["b3"].outcome == "accept"
            await send(made, "orders", [order("b4", action="cancel", ref_order_id="a2", **BUY), order("b5", quantity=31, price=95, **BUY),
                                        order("b6", quantity=30, price=94, time_in_force="ioc", **BUY)])
            got = by_id(await decisions(made, 9))
            assert measured(got["b5"]) == {"POSITION_LONG": "101"} and got["b6"].outcome == "accept"
            await asyncio.sleep(6.0)  # what of an order at once was not executed is gone
            await send(made, "orders", [order("c1", quantity=30, price=93, time_in_force="gtd", expire_ts=time.time_ns() + 8_000_000_000, **BUY)])
            assert by_id(await decisions(made, 10))["c1"].outcome == "accept"
            await kill_gate()
            await asyncio.sleep(9.0)
            await send(made, "orders", [order("c2", quantity=31, price=92, **BUY), order("c3", quantity=30, price=91, **BUY)])
            got = by_id(await decisions(made, 12))
            assert measured(got["c2"]) == {"POSITION_LONG": "101"} and got["c3"].outcome == "accept"

    asyncio.run(run())

"""Gates that stop, come back, join and leave on the deciding broker: an order gets one decision, whoever owns its account."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from schemas.records import Decision
from tables.exit_codes import ExitCode
from tests.integration.harness import Installation, Process
from tests.integration.test_order_path import (
    decisions,
    keep_quoting,
    made,
    open_the_gate,
    order,
    send,
    set_limit,
    start,
)

pytestmark = pytest.mark.kafka
__all__ = ["made"]
ACCOUNT, INSTRUMENT, FITS = "ACC-004", "I02", 71  # orders of 7 under a limit of 500


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [order(f"k{k}", account=ACCOUNT, instrument=INSTRUMENT, quantity=7, price=99 - k * 0.001) for k in range(first, first + count)]


@asynccontextmanager
async def open_market(made: Installation) -> AsyncIterator[None]:
    """Have quotes, marks and a limit that only so many orders fit under."""
    await asyncio.to_thread(start, made, "positions", "marks")
    await open_the_gate(made)
    stop = asyncio.Event()
    quoting = asyncio.create_task(keep_quoting(made, stop))
    limit = {"limit_id": "PL", "node": f"account:{ACCOUNT}", "instrument": INSTRUMENT, "metric": "position_long", "limit": 500, "reason": "test of gates"}
    await set_limit(made.settings, limit, "r")
    await asyncio.sleep(1.5)
    yield
    stop.set()
    await quoting


async def gate(made: Installation, folder: str, **environment: str) -> Process:
    return await asyncio.to_thread(made.worker("gate", folder, **environment).wait_ready)


def assert_each_once(found: list[Decision], sent: int) -> None:
    """Assert one decision an order, and that what was let through before still counted after.

    On a machine where nothing else gets its turn for seconds a gate also says that positions or prices stand still: it is
    right to, and as many orders as fit are let through all the same.
    """
    times = Counter(d.order_id for d in found)
    twice = {k: [(d.outcome, [r.code for r in d.reasons], d.ts_decision) for d in found if d.order_id == k] for k, n in times.items() if n > 1}
    assert not twice, f"{len(twice)} orders decided more than once: {dict(list(twice.items())[:5])}"
    missing = [k for k in range(sent) if f"k{k}" not in times]
    assert not missing and len(times) == sent, f"{len(missing)} orders not decided, from {missing[:5]}"
    codes = Counter(r.code for d in found for r in d.reasons)
    assert sum(d.outcome == "accept" for d in found) == FITS, codes
    assert codes["POSITION_LONG"] > 0 and codes.keys() <= {"POSITION_LONG", "STALE_POSITION", "STALE_PRICE"}, codes


def test_a_gate_that_was_stopped_decides_nothing_more_and_leaves(made: Installation, tmp_path: Any) -> None:
    """F3: SIGSTOP past the session timeout, then SIGCONT: orders wait on its socket and in its hands, others own them by now."""
    path = tmp_path / "zombie.sock"

    async def scenario() -> None:
        async with open_market(made):
            zombie = await gate(made, "zombie", DESKRISK_GATE_SOCKET=str(path))
            await send(made, "orders", rows(0, 40))
            await decisions(made, 40)
            reader, writer = await asyncio.open_unix_connection(str(path))
            zombie.signal(signal.SIGSTOP)
            await send(made, "orders", rows(40, 20))
            late = [order(f"late{k}", account=ACCOUNT, instrument=INSTRUMENT, quantity=7, price=98) for k in range(5)]
            writer.write(b"".join(json.dumps(o).encode() + b"\n" for o in late))
            await gate(made, "heir")
            await decisions(made, 60)
            zombie.signal(signal.SIGCONT)
            answers = [json.loads(line) for line in (await asyncio.wait_for(reader.read(), 30)).splitlines()]
            assert all("error" in a for a in answers), answers
            assert await asyncio.to_thread(zombie.process.wait, 30) == ExitCode.FENCED
            writer.close()
            await send(made, "orders", rows(60, 40))
            await decisions(made, 100)
            await asyncio.sleep(2.0)
            assert_each_once(await decisions(made, 100), 100)

    asyncio.run(scenario())


def test_gates_that_join_and_leave_decide_each_order_once(made: Installation) -> None:
    """F4: workers join and leave, one is killed, while orders come."""
    async def scenario() -> None:
        async with open_market(made):
            first = await gate(made, "a")
            sending = asyncio.create_task(send(made, "orders", rows(0, 6_000)))
            second = await gate(made, "b")
            await asyncio.to_thread(first.stop)
            third = await gate(made, "a")
            await asyncio.sleep(1.0)
            second.kill()
            await gate(made, "b")
            await asyncio.to_thread(third.stop)
            await sending
            await decisions(made, 6_000, 60.0)
            await asyncio.sleep(1.0)
            assert_each_once(await decisions(made, 6_000), 6_000)

    asyncio.run(scenario())


def test_what_a_local_gate_answered_stands_when_it_is_killed(made: Installation, tmp_path: Any) -> None:
    """F1: SIGKILL while a client reads answers: each one it has is on the log, once, and counts in the next gate."""
    path = tmp_path / "killed.sock"
    answered: dict[str, dict[str, Any]] = {}

    async def ask_until_killed(running: Process, first: int, after: int) -> None:
        """Ask for many at once; kill the gate in the moment in which so many answers are there."""
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"".join(json.dumps(o).encode() + b"\n" for o in rows(first, 60)))
        for _ in range(after):
            answer = json.loads(await reader.readline())
            answered[answer["order_id"]] = answer
        running.kill()
        while line := await reader.readline():  # what it wrote before was answered, too
            if line.endswith(b"\n"):
                answer = json.loads(line)
                answered[answer["order_id"]] = answer
        writer.close()

    async def scenario() -> None:
        async with open_market(made):
            for turn, after in enumerate((1, 20, 33)):
                await ask_until_killed(await gate(made, "killed", DESKRISK_GATE_SOCKET=str(path)), 100 * turn, after)
            await gate(made, "killed", DESKRISK_GATE_SOCKET=str(path))
            await send(made, "orders", rows(300, 100))
            await decisions(made, len(answered) + 100)
            await asyncio.sleep(1.0)
            found = await decisions(made, len(answered) + 100)
            assert set(Counter(d.order_id for d in found).values()) == {1}
            on_log = {d.order_id: d for d in found}
            assert {k: (a["outcome"], a["ts_decision"]) for k, a in answered.items()} == {k: (on_log[k].outcome, on_log[k].ts_decision) for k in answered}
            assert sum(d.outcome == "accept" for d in found) == FITS

    asyncio.run(scenario())


def test_a_session_whose_gate_is_killed_is_gone_and_the_next_gate_cancels_its_orders(made: Installation, tmp_path: Any) -> None:
    path = tmp_path / "session.sock"

    async def scenario() -> None:
        async with open_market(made):
            running = await gate(made, "one", DESKRISK_GATE_SOCKET=str(path))
            for session, first in (({"session": "algo-1", "cancel_on_disconnect": True}, 0), ({"session": "desk-1"}, 10)):
                reader, writer = await asyncio.open_unix_connection(str(path))
                writer.write(b"".join(json.dumps(o).encode() + b"\n" for o in (session, *rows(first, 3))))
                for _ in range(4):
                    await reader.readline()
            running.kill()
            await gate(made, "one")
            found = await decisions(made, 9)
            await asyncio.sleep(1.0)
            cancelled = {d.order_id: d.reasons[0].measured for d in found if d.outcome == "cancel"}
            assert set(cancelled) == {f"k{k}" for k in range(3)} and all("algo-1" in text for text in cancelled.values())
            await send(made, "orders", rows(20, 100))
            found = await decisions(made, 109)
            assert sum(d.outcome == "accept" for d in found) == FITS + 3, "what was cancelled is free again"

    asyncio.run(scenario())


def test_an_order_that_was_filled_and_comes_again_after_a_kill_is_not_done_twice(made: Installation) -> None:
    """Its order system did not see the answer and sends it anew, to a gate that reads on the log that it was done."""
    async def scenario() -> None:
        async with open_market(made):
            running = await gate(made, "before")
            (row,) = rows(0, 1)
            await send(made, "orders", [row])
            await decisions(made, 1)
            await send(made, "trades", [{"trade_id": "F1", "account": ACCOUNT, "instrument": INSTRUMENT, "side": "buy", "quantity": "7", "price": "99",
                                         "order_id": "k0", "trader": "t1", "ts_event": time.time_ns()}])
            await asyncio.sleep(1.5)
            await send(made, "orders", [row | {"quantity": "8"}])
            running.kill()
            await gate(made, "after")
            await send(made, "orders", [row | {"quantity": "9"}])
            first, *others = await decisions(made, 3)
            assert first.outcome == "accept" and [[(r.code, r.measured) for r in d.reasons] for d in others] == 2 * [[("DUPLICATE_ORDER", "k0")]]

    asyncio.run(scenario())

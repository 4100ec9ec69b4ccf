"""Orders to decisions on the deciding broker: once, stable across a kill, limits and halts live, working orders held."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from app.brokers import Broker
from app.control import current, set_limit, set_state
from app.decisions import decisions_of
from models.gate.explain import explain
from schemas.addresses import GateAddress
from schemas.records import Control, Decision
from tables.kafka import owner_partition
from tests.integration.harness import Installation, Process, prefix_of
from tests.integration.test_system import quotes
from tests.support.fork_server import run_command
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
REASON = "test of the order path"


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    asyncio.run(installation.create())
    yield installation
    installation.close()


def start(made: Installation, *roles: str) -> list[Process]:
    found = [made.worker(role, role) for role in roles]
    for process in found:
        process.wait_ready()
    return found


def order(order_id: str, account: str = "ACC-001", side: str = "buy", quantity: float = 10, price: float | None = 100, instrument: str = "I00",
          **more: Any) -> dict[str, Any]:
    return {"order_id": order_id, "account": account, "trader": "t1", "instrument": instrument, "side": side, "type": "limit" if price else "market",
            "quantity": str(quantity), "price": None if price is None else str(price), "ts_event": time.time_ns(), "locate_id": "L1"} | more


async def send(made: Installation, topic: str, rows: list[Any], wrong_partition: bool = False) -> None:
    producer = made.settings.client().producer()
    await producer.start()
    for row in rows:
        account = (row[0] if isinstance(row, list) else row)["account"] if not isinstance(row, bytes) else "ACC-001"
        p = owner_partition(account, made.settings.partitions)
        await producer.send_and_wait(made.settings.topics()[topic], row if isinstance(row, bytes) else json.dumps(row).encode(), account.encode(),
                                     (p + 1) % made.settings.partitions if wrong_partition else p)
    await producer.stop()


async def decisions(made: Installation, wanted: int, timeout: float = PATIENCE_S) -> list[Decision]:
    deadline = time.monotonic() + timeout
    while True:
        found = await decisions_of(made.settings, None, 100_000)
        if len(found) >= wanted:
            return found
        assert time.monotonic() < deadline, (len(found), wanted, [d.order_id for d in found])
        await asyncio.sleep(0.2)


async def open_the_gate(made: Installation) -> None:
    await quotes(made, {f"I{k:02d}": 100.0 for k in range(12)})
    for limit_id, metric, value in (("Q", "order_quantity", 1_000), ("V", "order_value", 1e6)):
        await set_limit(made.settings, {"limit_id": limit_id, "node": "firm", "metric": metric, "limit": value, "reason": REASON}, "risk-1")


async def keep_quoting(made: Installation, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await quotes(made, {f"I{k:02d}": 100.0 for k in range(12)})
        await asyncio.sleep(0.5)


def by_id(found: list[Decision]) -> dict[str, Decision]:
    out: dict[str, Decision] = {}
    for d in found:
        out.setdefault(d.order_id + ("/cancel" if d.outcome == "cancel" else ""), d)
    return out


def test_verdicts_limits_halts_and_cancels(made: Installation) -> None:
    start(made, "positions", "marks", "gate")

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await asyncio.sleep(1.5)
        await send(made, "orders", [order("o1"), order("o2", quantity=2_000), order("o3", price=150), order("o4", instrument="nobody"),
                                    [order("o5", side="sell"), order("o6", price=None)], b"{", order("o7", account="nobody")])
        await send(made, "orders", [order("o8", account="ACC-002")], wrong_partition=True)
        got = by_id(await decisions(made, 8))
        verdicts = {k: [r.code for r in d.reasons] or d.outcome for k, d in got.items()}
        assert verdicts == {"o1": "accept", "o2": ["MAX_QUANTITY"], "o3": ["PRICE_COLLAR"], "o4": ["UNKNOWN_INSTRUMENT"], "o5": ["SELF_MATCH"], "o6": "accept",
                            "o7": ["UNKNOWN_ACCOUNT"], "o8": "accept"}
        assert got["o2"].reasons[0].limit_id == "Q" and got["o2"].reasons[0].node == "firm"
        for d in got.values():  # every verdict of the kernel reproduces, bit for bit
            if d.inputs and d.order is not None:
                assert explain(d.inputs, d.order).differs_from(d) == []
        # a limit changes live
        await set_limit(made.settings, {"limit_id": "Q", "limit": 5, "reason": REASON}, "risk-2")
        await asyncio.sleep(1.0)
        await send(made, "orders", [order("p1", quantity=6, price=99)])
        got = by_id(await decisions(made, 9))
        assert [r.code for r in got["p1"].reasons] == ["MAX_QUANTITY"] and got["p1"].reasons[0].limit == "5" and got["p1"].limits_version == 2
        # a kill refuses everything but cancels, and cancels what works
        await set_state(made.settings, "account:ACC-001", "killed", "person-1", REASON)
        await asyncio.sleep(1.0)
        await send(made, "orders", [order("p2", quantity=1, price=98), order("p3", action="cancel", ref_order_id="o6")])
        await send(made, "orders", [order("p4", account="ACC-002", quantity=1, price=97)])
        got = by_id(await decisions(made, 14))
        assert [r.code for r in got["p2"].reasons] == ["HALTED"] and got["p4"].outcome == "accept"
        assert got["p3"].outcome == "accept", "the kill has cancelled it; a cancel always passes: it may live at the venue (decision 0070)"
        assert got["o1/cancel"].outcome == "cancel" and got["o6/cancel"].outcome == "cancel"
        await set_state(made.settings, "account:ACC-001", "active", "person-2", REASON)
        await asyncio.sleep(1.0)
        await send(made, "orders", [order("p5", quantity=1, price=96)])
        got = by_id(await decisions(made, 15))
        assert got["p5"].outcome == "accept"
        stop.set()
        await quoting

    asyncio.run(run())
    done = run_command("decisions", "explain", "o3", **made.environment())
    shown = msgspec.json.decode(done.stdout)
    assert done.returncode == 0 and shown["reproduced"] is True and shown["reasons"][0]["rule"].startswith("RTS 6")


def test_working_orders_count_until_they_are_filled(made: Installation) -> None:
    start(made, "positions", "marks", "gate")

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await set_limit(made.settings, {"limit_id": "PL", "node": "account:ACC-003", "instrument": "I01", "metric": "position_long", "limit": 100, "reason": REASON}, "r")
        await asyncio.sleep(1.5)
        buy = {"account": "ACC-003", "instrument": "I01"}
        await send(made, "orders", [order("a1", quantity=60, price=99, **buy), order("a2", quantity=60, price=98, **buy)])
        got = by_id(await decisions(made, 2))
        assert got["a1"].outcome == "accept" and [(r.code, r.measured) for r in got["a2"].reasons] == [("POSITION_LONG", "120")]
        # filled in two parts: position and working order together never exceed what was let through
        fill = {"side": "buy", "price": "99", "order_id": "a1", "trader": "t1", **buy}
        await send(made, "trades", [fill | {"trade_id": "F1", "quantity": "20", "ts_event": time.time_ns()}])
        await asyncio.sleep(1.5)
        await send(made, "orders", [order("a3", quantity=40, price=97, **buy), order("a4", quantity=1, price=96, **buy)])
        got = by_id(await decisions(made, 4))
        assert got["a3"].outcome == "accept" and [(r.code, r.measured) for r in got["a4"].reasons] == [("POSITION_LONG", "101")]
        # a replace frees what it replaces; an unknown one is refused
        await send(made, "orders", [order("a5", quantity=30, price=97, action="replace", ref_order_id="a3", **buy), order("a6", quantity=10, price=95, **buy),
                                    order("a7", quantity=1, price=97, action="replace", ref_order_id="zz", **buy)])
        got = by_id(await decisions(made, 7))
        assert got["a5"].outcome == "accept" and got["a6"].outcome == "accept" and [r.code for r in got["a7"].reasons] == ["UNKNOWN_ORDER"]
        stop.set()
        await quoting

    asyncio.run(run())


def test_more_orders_than_it_can_decide_at_once_are_decided_late_in_order_and_each_once(made: Installation) -> None:
    count, accounts = 10_000, ["ACC-001", "ACC-002", "ACC-003"]

    async def scenario() -> None:
        await open_the_gate(made)
        (gate,) = start(made, "gate")
        producer = made.settings.client().producer(linger_ms=5)
        await producer.start()
        rows = [order(f"b{k}", accounts[k % 3], quantity=1 + k % 997, price=99 - k % 2, side="buy") for k in range(count)]
        for row in rows:
            await producer.send(made.settings.topics()["orders"], json.dumps(row).encode(), row["account"].encode(),
                                owner_partition(row["account"], made.settings.partitions))
        await producer.stop()
        found = await decisions(made, count, 60.0)
        assert len(found) == count and {d.order_id for d in found} == {r["order_id"] for r in rows} and gate.process.poll() is None
        for account in accounts:  # in the order in which they came, and each says when it was decided
            mine = [d for d in found if d.account == account]
            assert [d.order_id for d in mine] == [r["order_id"] for r in rows if r["account"] == account]
            assert all(a.ts_decision <= b.ts_decision for a, b in itertools.pairwise(mine))

    asyncio.run(scenario())


def test_no_decision_changes_when_the_gate_is_killed(made: Installation) -> None:
    start(made, "positions", "marks")
    (gate,) = start(made, "gate")

    async def run() -> None:
        nonlocal gate
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await set_limit(made.settings, {"limit_id": "PL", "node": "account:ACC-004", "instrument": "I02", "metric": "position_long", "limit": 500, "reason": REASON}, "r")
        await asyncio.sleep(1.5)
        sent = [order(f"k{i}", account="ACC-004", instrument="I02", quantity=7, price=99 - i * 0.01) for i in range(150)]
        for part in range(3):
            await send(made, "orders", sent[part * 50: part * 50 + 25])
            gate.kill()
            await send(made, "orders", sent[part * 50 + 25: part * 50 + 50])
            gate = made.worker("gate", "gate")
            await asyncio.to_thread(gate.wait_ready)
        await decisions(made, 150)
        await asyncio.sleep(2.0)
        found = await decisions_of(made.settings, None, 100_000)
        first: dict[str, Decision] = {}
        for d in found:
            if d.order_id in first:
                assert first[d.order_id].outcome == d.outcome, d.order_id
            first.setdefault(d.order_id, d)
        assert set(first) == {o["order_id"] for o in sent}
        # what was accepted before a kill still counts after it: 71 orders of 7 fit under 500, not one more
        assert sum(d.outcome == "accept" for d in first.values()) == 71
        assert {r.code for d in first.values() for r in d.reasons} == {"POSITION_LONG"}
        stop.set()
        await quoting

    asyncio.run(run())


def test_the_local_gate_decides_and_cancels_when_its_session_ends(made: Installation, tmp_path: Any) -> None:
    path = tmp_path / "gate.sock"
    start(made, "positions", "marks")
    made.worker("gate", "gate", DESKRISK_GATE_SOCKET=str(path)).wait_ready()

    async def run() -> None:
        await open_the_gate(made)
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        await asyncio.sleep(1.5)
        reader, writer = await asyncio.open_unix_connection(str(path))

        async def ask(line: Any) -> Any:
            writer.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
            return json.loads(await reader.readline())

        assert await ask({"session": "algo-1", "cancel_on_disconnect": True}) == {"session": "open"}
        assert (await ask(order("u1", price=99)))["outcome"] == "accept"
        refused = await ask(order("u2", price=150))
        assert refused["outcome"] == "reject" and refused["reasons"][0]["code"] == "PRICE_COLLAR"
        assert "error" in await ask(b"{")
        dry = await ask(order("u9", price=98) | {"dry_run": True})  # says it, and leaves no trace
        replaced = await ask(order("u9", price=98, action="replace") | {"dry_run": True})  # it names no order
        assert dry["outcome"] == "accept" and [r["code"] for r in replaced["reasons"]] == ["UNKNOWN_ORDER"], replaced
        # both doors see the same book: the topic's order would trade against the session's
        await send(made, "orders", [order("u3", side="sell", price=99)])
        got = by_id(await decisions(made, 3))
        assert [r.code for r in got["u3"].reasons] == ["SELF_MATCH"]
        # many at once are answered in their order, in whatever pieces they arrive
        many = [json.dumps(order(f"m{k}", price=150)).encode() + b"\n" for k in range(30)]
        whole = b"".join(many)
        for piece in (whole[:700], whole[700:701], whole[701:]):
            writer.write(piece)
            await asyncio.sleep(0.05)
        assert [json.loads(await reader.readline())["order_id"] for _ in many] == [f"m{k}" for k in range(30)]
        # a line that never ends is an error, and no more is heard from who sends it
        writer.write(b"x" * 70_000)
        assert "65536" in json.loads(await reader.readline())["error"] and await reader.read() == b""
        writer.close()
        got = by_id(await decisions(made, 34))
        assert got["u1/cancel"].outcome == "cancel" and "algo-1" in got["u1/cancel"].reasons[0].measured
        stop.set()
        await quoting

    asyncio.run(run())
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_a_missing_or_stale_price_closes_the_gate(made: Installation) -> None:
    start(made, "positions", "marks", "gate")

    async def run() -> None:
        await set_limit(made.settings, {"limit_id": "Q", "node": "firm", "metric": "order_quantity", "limit": 100, "reason": REASON}, "r")
        await set_limit(made.settings, {"limit_id": "V", "node": "firm", "metric": "order_value", "limit": 1e6, "reason": REASON}, "r")
        await asyncio.sleep(1.0)
        await send(made, "orders", [order("s1")])
        got = by_id(await decisions(made, 1))
        assert "NO_REFERENCE_PRICE" in {r.code for r in got["s1"].reasons}

    asyncio.run(run())


def test_the_owner_decides_and_others_say_where_it_answers(made: Installation, tmp_path: Any) -> None:
    """Two gates: whichever is asked, the order reaches the worker that owns its account, with a token of the role `trader`."""
    tokens = "t" * 20 + ":alice:trader," + "v" * 20 + ":bob:"

    async def scenario() -> None:
        start(made, "marks", "positions")
        workers = [made.worker("gate", folder, DESKRISK_GATE_HTTP_PORT="0", DESKRISK_API_TOKENS=tokens, DESKRISK_INSTANCE=folder,
                               DESKRISK_GATE_SOCKET=str(tmp_path / f"{folder}.sock")) for folder in ("g1", "g2")]
        await open_the_gate(made)
        for worker in workers:
            worker.wait_ready()
        stop = asyncio.Event()
        quoting = asyncio.create_task(keep_quoting(made, stop))
        found: dict[int, str | None] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(set(found.values())) < 2:
            assert time.monotonic() < deadline, found
            found = {int(k): a.address for k, a in (await current(made.settings, "gates", GateAddress)).items()}
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)
        accounts = [f"ACC-{k:03d}" for k in range(1, 9)]
        trader = {"Authorization": "Bearer " + "t" * 20}
        redirected = 0
        async with aiohttp.ClientSession() as session:
            for k, account in enumerate(accounts):
                for address in sorted(set(found.values())):
                    body = json.dumps(order(f"h{k}-{address[-1]}", account=account, quantity=1 + k, price=99)).encode()
                    url = f"{address}/orders"
                    async with session.post(url, data=body, headers=trader, allow_redirects=False) as reply:
                        if reply.status == 307:  # a client must not carry a token to another address by itself
                            redirected, url = redirected + 1, reply.headers["Location"]
                        else:
                            answer = await reply.json()
                    if url != f"{address}/orders":
                        async with session.post(url, data=body, headers=trader, allow_redirects=False) as reply:
                            answer = await reply.json()
                    assert reply.status == 200 and answer["account"] == account, answer
            async with session.post(f"{address}/orders", data=body) as reply:
                assert reply.status == 401
            async with session.post(f"{address}/orders", data=body, headers={"Authorization": "Bearer " + "v" * 20}) as reply:
                assert reply.status == 403
            async with session.post(f"{address}/orders", data=b'{"order_id":1}', headers=trader) as reply:
                assert reply.status == 400 and "error" in await reply.json()
        assert redirected == len(accounts), "one of the two gates owns each account"
        assert len(await decisions(made, 2 * len(accounts))) == 2 * len(accounts)
        # over a socket: the other gate's socket is named, and decides
        for k, account in enumerate(accounts):
            asked = order(f"s{k}", account=account, quantity=1, price=98)
            answers = [await over_socket(str(tmp_path / f"{folder}.sock"), asked | {"dry_run": True}) for folder in ("g1", "g2")]
            (elsewhere,) = [x for x in answers if "redirect" in x]
            assert elsewhere["redirect"] == owner_partition(account, made.settings.partitions) and elsewhere["host"] and elsewhere["address"] in found.values()
            assert (await over_socket(elsewhere["socket"], asked))["outcome"] == "accept"
        stop.set()
        await quoting
    asyncio.run(scenario())


async def over_socket(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(json.dumps(asked).encode() + b"\n")
    answer = json.loads(await reader.readline())
    writer.close()
    return answer  # type: ignore[no-any-return]


def test_refusals_trip_the_breaker_that_watches_their_rate(made: Installation) -> None:
    async def scenario() -> None:
        start(made, "marks", "positions", "gate")
        await open_the_gate(made)
        await set_limit(made.settings, {"limit_id": "RR", "node": "trader:t1", "metric": "reject_rate", "limit": 0.5, "reason": REASON, "action": "halt"}, "risk-1")
        await asyncio.sleep(1.5)
        await send(made, "orders", [order(f"r{k}", quantity=5_000 + k) for k in range(25)])
        await decisions(made, 25)
        deadline = time.monotonic() + PATIENCE_S
        while "trader:t1" not in (held := await current(made.settings, "controls", Control)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert held["trader:t1"].state == "halted" and held["trader:t1"].by == "deskrisk" and "reject_rate" in held["trader:t1"].reason
        await quotes(made, {"I00": 100.0})
        await asyncio.sleep(0.5)
        await send(made, "orders", [order("small", quantity=1, price=99)])
        assert "HALTED" in [r.code for d in await decisions(made, 26) if d.order_id == "small" for r in d.reasons]
    asyncio.run(scenario())

"""The whole house: trades and ticks in, page, stream, ClickHouse and commands out, on the deciding broker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse_driver import Client

from app import clickhouse_server
from app.brokers import Broker, free_port
from app.measure import StreamMeter
from schemas.codec import encode
from schemas.records import Alert, Decision, Order, Reason
from tests.integration.harness import ACCOUNTS, INSTRUMENTS, ROOT, Installation, Process, Upstream
from tests.support.fork_server import run_command
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
PAIR = "I00"


@pytest.fixture(scope="module")
def running(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """All roles up, 1,500 trades and a mark for every instrument in."""
    made = Installation(broker, tmp_path_factory.mktemp("system"), "system")
    out: dict[str, Any] = {"made": made}

    async def fill() -> None:
        async with Upstream(made, 7) as upstream:
            await quotes(made, {i.instrument: 100.0 + k for k, i in enumerate(INSTRUMENTS)})
            await upstream.send(1_500)
            out["sent"] = upstream.sent
        await made.quiesce()
    asyncio.run(made.create())
    for role in ("positions", "marks", "risk"):
        made.worker(role, role)
    out["gateway"] = made.start("gateway", "--port", "0")
    for process in made.processes:
        process.wait_ready()
    out["url"] = next(line for line in out["gateway"].lines if "READY" in line).split()[-1]
    asyncio.run(fill())
    wait_for(lambda: firm(out["url"])["exposure"]["positions"] > 100)
    yield out
    made.close()


async def quotes(made: Installation, prices: dict[str, float]) -> None:
    """Publish one quote for each instrument."""
    from tables.kafka import owner_partition

    producer = made.settings.client().producer()
    await producer.start()
    for name, price in prices.items():
        value = json.dumps({"instrument": name, "bid": price - 0.5, "ask": price + 0.5, "ts_event": time.time_ns()})
        await producer.send_and_wait(made.settings.topics()["ticks"], value.encode(), name.encode(),
                                     owner_partition(name, made.settings.partitions))
    await producer.stop()


def firm(url: str) -> dict[str, Any]:
    """Return the firm node, or zeros while there is none."""
    reply = httpx.get(f"{url}/api/risk/firm")
    return dict(reply.json()) if reply.status_code == 200 else {"exposure": {"positions": 0}}


def wait_for(condition: Any, seconds: float = PATIENCE_S) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not reached"
        time.sleep(0.1)


def test_levels_add_up_on_the_stream_and_in_the_snapshot(running: dict[str, Any]) -> None:
    """I2, and the unpriced positions are named: BTC has no rate, so the inverse contract is excluded, not zero.

    What it realised, in BTC, is not known either: neither is that of a node above it.
    """
    inverse = len({(t["account"]) for t in running["sent"] if t["instrument"] == "INV"})
    wait_for(lambda: firm(running["url"])["quality"]["unpriced"] == inverse)
    tables = {t["table"]: t for t in httpx.get(f"{running['url']}/api/snapshot").json()["tables"]}
    nodes = {r[0]: dict(zip(tables["node"]["cols"], r, strict=True)) for r in tables["node"]["rows"]}
    for level in ("book", "desk", "strategy", "fund"):
        parts = [n for name, n in nodes.items() if name.startswith(f"{level}:")]
        assert nodes["firm"]["realised"] is None and None in [p["realised"] for p in parts], level
        for figure in ("gross", "net", "unrealised", "positions", "unpriced"):
            assert sum(p[figure] for p in parts) == pytest.approx(nodes["firm"][figure], rel=1e-9), (level, figure)
    assert nodes["firm"]["unpriced"] == inverse and nodes["firm"]["q"] == 2
    assert all("INV" in name for name in firm(running["url"])["quality"]["excluded"])
    ladder = [dict(zip(tables["position"]["cols"], r, strict=True)) for r in tables["position"]["rows"]]
    assert all(row["mv"] is None and row["q"] == 3 for row in ladder if row["inst"] == "INV")


def test_a_mark_moves_every_position_in_it(running: dict[str, Any]) -> None:
    url, before = running["url"], {}
    rows = httpx.get(f"{url}/api/positions", params={"instrument": PAIR}).json()
    quantity = sum(float(r["quantity"]) for r in rows)
    before = firm(url)["pnl"]["unrealised"]
    asyncio.run(quotes(running["made"], {PAIR: 101.0}))
    wait_for(lambda: firm(url)["pnl"]["unrealised"] == pytest.approx(before + quantity * 1.0, rel=1e-6))


def test_the_stream_resumes_without_a_gap_and_without_a_snapshot(running: dict[str, Any]) -> None:
    events = read_stream(running["url"], {}, lambda seen: "hb" in [e for e, _, _ in seen])
    names = [e for e, _, _ in events]
    assert names[0] == "hello" and names.count("snapshot") == 2 and "feed" in names
    last = next(i for _, i, _ in reversed(events) if i)
    asyncio.run(quotes(running["made"], {"I01": 101.5}))
    again = read_stream(running["url"], {"Last-Event-ID": last}, lambda seen: "delta" in [e for e, _, _ in seen])
    assert "snapshot" not in [e for e, _, _ in again]
    stale = read_stream(running["url"], {"Last-Event-ID": "other-5"}, lambda seen: "hb" in [e for e, _, _ in seen])
    assert "snapshot" in [e for e, _, _ in stale]


def read_stream(url: str, headers: dict[str, str], enough: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Read events until there are enough."""
    seen: list[tuple[str, str, dict[str, Any]]] = []
    with httpx.stream("GET", f"{url}/api/stream", headers=headers, timeout=10) as reply:
        event, ident = "", ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("id: "):
                ident = line[4:]
            elif line.startswith("data: "):
                seen.append((event, ident, json.loads(line[6:])))
                if enough(seen):
                    return seen
                ident = ""
    return seen


def test_a_client_that_stops_reading_is_dropped_and_costs_the_others_nothing(running: dict[str, Any]) -> None:
    host, port = running["url"].removeprefix("http://").split(":")
    frozen = socket.create_connection((host, int(port)))
    frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    frozen.sendall(b"GET /api/stream?rate=20 HTTP/1.1\r\nHost: x\r\n\r\n")

    async def load() -> None:
        async with Upstream(running["made"], 99) as upstream:
            upstream.first = 10_000_000
            await upstream.send(6_000, pause_s=0.05)
    meter = StreamMeter()
    asyncio.run(load())
    wait_for(lambda: "deskrisk_sse_clients_dropped_total 1" in httpx.get(f"{running['url']}/metrics").text)
    frozen.close()
    for event, _, data in read_stream(running["url"], {}, lambda seen: len(seen) > 3):
        meter.take(event, data)
    assert meter.rows > 0


@pytest.mark.parametrize(("path", "status", "text"), [
    ("/api/stream?scope=drop%20table", 400, "scope: expected firm or level:name"),
    ("/api/stream?rate=x", 400, "rate: expected a number"), ("/api/risk/desk:nobody", 404, "not known"),
    ("/health/ready", 200, "ready"), ("/metrics", 200, "deskrisk_sse_clients"), ("/nothing", 404, ""),
])
def test_answers_and_refusals(running: dict[str, Any], path: str, status: int, text: str) -> None:
    reply = httpx.get(running["url"] + path)
    assert (reply.status_code, text in reply.text) == (status, True)
    assert reply.headers["content-security-policy"].startswith("default-src 'self'")


def test_commands_read_what_the_gateway_has(running: dict[str, Any]) -> None:
    environment = os.environ | running["made"].environment() | {"DESKRISK_GATEWAY_URL": running["url"]}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, timeout=120, **environment)
    rows = json.loads(call("positions", "--account", ACCOUNTS[0].account, "--json").stdout)
    assert rows and {r["account"] for r in rows} == {ACCOUNTS[0].account}
    assert json.loads(call("risk", "desk:D1", "--json").stdout)["node"] == "desk:D1"
    done = call("verify", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"] and report["i1"] > 100, done.stderr
    assert call("topics", "check").returncode == 0
    assert call("risk", "desk:nobody").returncode == 1


def test_rows_in_clickhouse_are_the_log_also_after_a_kill(running: dict[str, Any], tmp_path: Path) -> None:
    library = clickhouse_server.fetch()
    if library is None:
        pytest.skip("no ClickHouse library: npm is not on this machine")
    made, port = running["made"], free_port()
    store = tmp_path / "clickhouse"
    store.mkdir()

    def start_server() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, clickhouse_server.__file__, str(library), str(store), str(port)],
                                   env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        wait_for(lambda: listening(port))
        return process
    url = f"clickhouse://default:@127.0.0.1:{port}/default"
    server = start_server()
    sink = made.start("sink", DESKRISK_CLICKHOUSE_URL=url).wait_ready()
    try:
        want = sum(asyncio.run(made.ends()))
        wait_for(lambda: trade_rows(port) == want)
        server.kill()  # F16: gone while the log grows, back with its rows, then the sink dies as well
        server.wait()

        async def more() -> None:
            async with Upstream(made, 55) as upstream:
                upstream.first = 20_000_000
                await upstream.send(500)
        asyncio.run(more())
        sink.kill()
        server = start_server()
        made.start("sink", DESKRISK_CLICKHOUSE_URL=url).wait_ready()
        want = sum(asyncio.run(made.ends()))
        wait_for(lambda: trade_rows(port) == want)
        client = Client("127.0.0.1", port)
        assert client.execute("SELECT count(), uniqExact(partition, offset, idx) FROM deskrisk.trades") == [(want, want)]
        net = client.execute("SELECT sum(if(side = 'buy', quantity, -quantity)) FROM deskrisk.trades FINAL")[0][0]
        wait_for(lambda: client.execute(
            "SELECT sum(q) FROM (SELECT argMax(quantity, (as_of_offset, revision)) AS q FROM deskrisk.positions "
            "GROUP BY account, instrument)")[0][0] == net)
        assert client.execute("SELECT count() FROM deskrisk.risk WHERE node = 'firm'")[0][0] > 0
        asyncio.run(a_refusal_and_an_alert(made))
        wait_for(lambda: client.execute("SELECT quantity, codes, measured, value, gross FROM deskrisk.decisions WHERE order_id = 'D-1'")
                 == [(Decimal("10.5"), ["MAX_QUANTITY", "HALTED"], ["10.5", "halted"], 105.0, None)])
        wait_for(lambda: client.execute("SELECT node, value, ack_by FROM deskrisk.alerts WHERE kind = 'breach'") == [("desk:D", 2.0, "ann")])
    finally:
        server.kill()


async def a_refusal_and_an_alert(made: Installation) -> None:
    """Write a decision and an alert to their logs, as a gate does."""
    now, topics = time.time_ns(), made.settings.topics()
    order = Order(order_id="D-1", account="A", trader="t", instrument="X", side="buy", type="limit", quantity=Decimal("10.5"), price=Decimal(10), ts_event=now)
    reasons = [Reason(code="MAX_QUANTITY", measured="10.5", limit="10"), Reason(code="HALTED", measured="halted", limit="active or reducing", node="desk:D")]
    decision = Decision(order_id="D-1", account="A", instrument="X", outcome="reject", reasons=reasons, effect={"value": 105.0}, snapshot_id=1, limits_version=1, ts_event=now,
                        ts_decision=now, service_ns=1, order=order)
    alert = Alert(alert_id="a-1", kind="breach", node="desk:D", metric="gross", value=2.0, limit=1.0, utilisation=2.0, cause_ts=now, raised_ts=now, snapshot_id=1, ack_by="ann")
    producer = made.settings.client().producer()
    await producer.start()
    for topic, record in (("decisions", decision), ("alerts", alert)):
        await producer.send_and_wait(topics[topic], encode(record), partition=0)
    await producer.stop()


def listening(port: int) -> bool:
    """Say whether something listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def trade_rows(port: int) -> int:
    """Return how many trades ClickHouse has; 0 while there is no table."""
    from clickhouse_driver.errors import Error

    try:
        return int(Client("127.0.0.1", port).execute("SELECT count() FROM deskrisk.trades")[0][0])
    except (Error, OSError, EOFError):
        return 0


@pytest.mark.browser
def test_the_page_shows_live_numbers(running: dict[str, Any]) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.goto(f"{running['url']}/?scope=book:B1")
        boxes = "(id) => [...document.querySelectorAll(`#${id} .row`)].filter(r => r.getClientRects().length).length"
        page.wait_for_selector("#ladder .row .cell", state="visible")
        page.wait_for_selector("#stream-chip[data-state=live]")
        assert page.evaluate(boxes, "blotter") == 3, "three desks"
        lines = page.evaluate(boxes, "ladder")
        assert lines == page.evaluate("() => window.deskrisk.ladder.rows.size"), "what is seen is what there is"
        page.locator("#level-select").focus()
        page.keyboard.press("Escape")
        assert page.input_value("#level-select") == "desk", "Esc clears the filter, and nothing else"
        page.select_option("#level-select", "fund")
        page.wait_for_function(f"() => ({boxes})('blotter') === window.deskrisk.blotter.rows.size")
        page.select_option("#level-select", "desk")
        page.keyboard.press("Escape")
        page.keyboard.press("Backspace")  # to the firm: more lines than one book has
        page.wait_for_function(f"(n) => ({boxes})('ladder') > n", arg=lines)
        page.go_back()
        page.wait_for_function(f"(n) => ({boxes})('ladder') === n", arg=lines)
        assert page.locator("#models tr").count() in (1, 9), "of the scope, or none: never those of the one that was left"
        books = set(page.locator("#ladder .row:not([hidden]) .cell:nth-child(2)").all_inner_texts())
        assert books == {"B1"}
        row = page.locator("#ladder .row:not([hidden])", has_text="I02").first
        before = row.locator(".cell:nth-child(5)").inner_text()
        sender = threading.Thread(target=lambda: asyncio.run(quotes(running["made"], {"I02": 104.0})))
        sender.start()  # playwright has a loop of its own in this thread
        sender.join()
        page.wait_for_function("(old) => [...document.querySelectorAll('#ladder .row:not([hidden])')].some(r => "
                               "r.children[0].textContent === 'I02' && r.children[4].textContent !== old)", arg=before)
        page.locator("#blotter .head .cell", has_text="net").click()
        assert page.locator("#blotter .head [aria-sort=descending]").count() == 1
        page.fill("#filter", "i02")
        page.wait_for_function("() => [...document.querySelectorAll('#ladder .row')].filter(r => r.getClientRects().length).length === 1")
        gateway: Process = running["gateway"]
        gateway.kill()
        page.wait_for_selector("body.lost #banner:not([hidden])")
        assert "do not trade" in page.inner_text("#banner")
        browser.close()
    assert [p for p in problems if "ERR_" not in p] == []

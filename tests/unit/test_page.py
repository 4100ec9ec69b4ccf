"""The page as it is seen: what has a layout box, however a scope is entered."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from app.brokers import free_port
from app.gateway import server
from app.gateway.server import FOLLOWING, Gateway
from app.settings import Settings
from schemas.nodes import Exposure, Pnl, Quality, Risk
from tests.property.test_rollup import INSTRUMENTS, account, mark, position

BOXES = "(id) => [...document.querySelectorAll(`#${id} .row`)].filter(r => r.getClientRects().length).length"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gateway of eight accounts in as many books, without a broker."""
    monkeypatch.setattr(server.process, "ages", lambda now: dict.fromkeys(FOLLOWING, 0.1))
    gateway, port = Gateway(Settings(brokers="localhost:1")), free_port()
    for record in INSTRUMENTS:
        gateway.state.book.add_instrument(record)
        gateway.state.book.add_mark(mark(record.instrument, 60.0))
    pnl = Pnl(realised=1.0, unrealised=0.0, day=0.0, price=0.0, fx=0.0, fees=0.0, total=0.0)
    for k in range(8):
        gateway.state.add_account(account(f"A{k}", k))
        for j, record in enumerate(INSTRUMENTS[:3]):
            gateway.state.add_position(position(f"A{k}", record.instrument, 10.0 + j, 50.0, 0.0, 1), 0)
        for name in ("firm", f"book:B{k}", f"desk:D{k // 2}", f"fund:F{k // 4}"):
            gateway.state.add_risk(Risk(node=name, snapshot_id=1, ts=1, as_of=[], quality=Quality(0, 0, []), base_currency="USD", pnl=pnl,
                                        exposure=Exposure(gross=1.0, net=0.0, long=0.0, short=0.0, positions=1)))
    gateway.state.turn()
    gateway.ready = True
    web = uvicorn.Server(uvicorn.Config(gateway.app(), port=port, lifespan="off", log_config=None))

    async def serve() -> None:
        async def turn() -> None:
            while not web.should_exit:
                gateway.turned_ms = int(time.time() * 1000)
                gateway._wake_clients()
                await asyncio.sleep(0.05)
            gateway.say_goodbye()
        await asyncio.gather(web.serve(), turn())
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    while not web.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    web.should_exit = True
    thread.join()


@pytest.mark.browser
def test_rows_that_are_seen_are_those_of_the_scope(url: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))

        def seen(grid: str, count: int) -> None:
            page.wait_for_function(f"n => ({BOXES})('{grid}') === n", arg=count, timeout=8_000)
        page.goto(f"{url}/?scope=fund:F0")
        page.wait_for_selector("#stream-chip[data-state=live]")
        seen("ladder", 12)
        seen("blotter", 4)
        page.select_option("#book-select", "book:B1")
        seen("ladder", 3)
        page.select_option("#level-select", "fund")
        seen("blotter", 2)
        page.locator("#level-select").focus()
        page.keyboard.press("Escape")
        assert page.input_value("#level-select") == "fund", "Esc clears the filter, and nothing else"
        page.evaluate("() => document.querySelector('#models').tBodies[0].replaceChildren(document.createElement('tr'))")
        page.go_back()
        seen("ladder", 12)
        assert page.locator("#models tbody tr").count() == 0, "nothing of the scope that was left"
        page.fill("#filter", "nothing like it")
        seen("ladder", 0)
        page.keyboard.press("Escape")
        seen("ladder", 12)
        browser.close()
    assert problems == []

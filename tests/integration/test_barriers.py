"""A barrier that was touched stays touched: through a kill of every process that saw it, until a person takes it back."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal

import httpx
import pytest

from app.control import publish
from app.reference_files import publish_reference
from schemas.market import Surface, VolSlice
from schemas.records import Instrument
from tests.integration.harness import ACCOUNTS, Installation, Process
from tests.integration.test_system import quotes, wait_for
from tests.support.fork_server import run_command

pytestmark = pytest.mark.kafka
EXPIRY = "2099-01-15"
SHARE = Instrument(instrument="KI", asset_class="equity", currency="USD", quantity_increment=Decimal(1))
OPTION = Instrument(instrument="KI-OUT", asset_class="option", currency="USD", quantity_increment=Decimal(1), underlying="KI",
                    right="call", strike=Decimal(100), expiry=EXPIRY, style="european", barrier_kind="down_and_out",
                    barrier=Decimal(99), rebate=Decimal(2))


async def upstream(made: Installation) -> None:
    """Publish the option, what it is priced by, and one trade in it."""
    await publish_reference(made.settings.client(), made.settings.topics(), [SHARE, OPTION], [])
    await publish(made.settings, "market.surfaces", "USD", Surface(underlying="USD", ts_event=time.time_ns(), rates=[(1.0, 0.03)]))
    await publish(made.settings, "market.surfaces", "KI", Surface(
        underlying="KI", ts_event=time.time_ns(), dividends=[], vols=[VolSlice(expiry=EXPIRY, strikes=[100.0], vols=[0.2])]))
    producer = made.settings.client().producer()
    await producer.start()
    trade = {"trade_id": "B1", "account": ACCOUNTS[0].account, "instrument": OPTION.instrument, "side": "buy", "quantity": "10",
             "price": "9.5", "ts_event": time.time_ns()}
    await producer.send_and_wait(made.settings.topics()["trades"], json.dumps(trade).encode(), ACCOUNTS[0].account.encode())
    await producer.stop()


def values(url: str) -> tuple[float | None, float | None]:
    """Return the position's value and the firm's net, as the gateway and the risk worker have them."""
    rows = httpx.get(f"{url}/api/positions", params={"instrument": OPTION.instrument}).json()
    firm = httpx.get(f"{url}/api/risk/firm")
    return (rows[0]["market_value"] if rows else None), (firm.json()["exposure"]["net"] if firm.status_code == 200 else None)


def start(made: Installation) -> tuple[str, list[Process]]:
    """Start a risk worker and a gateway; return where the gateway answers."""
    processes = [made.worker("risk", "risk"), made.start("gateway", "--port", "0")]
    for process in processes:
        process.wait_ready()
    return next(line for line in processes[1].lines if "READY" in line).split()[-1], processes


def test_a_touched_barrier_is_known_after_a_kill(made: Installation) -> None:
    asyncio.run(made.create())
    for role in ("positions", "marks"):
        made.worker(role, role).wait_ready()
    url, processes = start(made)
    asyncio.run(upstream(made))
    asyncio.run(quotes(made, {SHARE.instrument: 100.0}))
    wait_for(lambda: (lambda v: v[0] is not None and v[0] > 20 and v[0] == pytest.approx(v[1]))(values(url)))

    asyncio.run(quotes(made, {SHARE.instrument: 98.5}))
    wait_for(lambda: values(url) == (20.0, 20.0))
    wait_for(lambda: OPTION.instrument in asyncio.run(made.newest("touches")))
    touch = asyncio.run(made.newest("touches"))[OPTION.instrument]
    assert touch["touched"] and touch["price"] == 98.5 and touch["by"] == "deskrisk"
    for process in processes:
        process.kill()

    asyncio.run(quotes(made, {SHARE.instrument: 100.5}))  # above the barrier again while nobody looks
    url, _ = start(made)
    wait_for(lambda: values(url) == (20.0, 20.0))
    done = run_command("barriers", "set", OPTION.instrument, "--untouched", "--reason", "a wrong price of the exchange", "--by", "ann",
                       **made.environment())
    assert done.returncode == 0, done.stderr
    wait_for(lambda: (lambda v: v[0] is not None and v[0] > 20 and v[0] == pytest.approx(v[1]))(values(url)))
    shown = run_command("barriers", "show", **made.environment())
    assert json.loads(shown.stdout)["by"] == "ann" and not json.loads(shown.stdout)["touched"]

"""Funding of perpetuals is booked once, through duplicates, a kill and a bust, and is a line of its own in the P&L."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from app.reference_files import publish_reference
from app.roll import roll
from models.fixed_income import FixedIncome
from models.market import Market
from schemas.reasons import QuarantineReason
from schemas.records import Instrument
from tests.integration.harness import ACCOUNTS, Installation
from tests.integration.test_system import quotes, wait_for

pytestmark = pytest.mark.kafka
PERPETUAL = Instrument(instrument="XBT-PERP", asset_class="perpetual", currency="USD", quantity_increment=Decimal(1))
ACCOUNT = ACCOUNTS[0].account
KEY = f"{ACCOUNT}|{PERPETUAL.instrument}"


async def send(made: Installation, *records: dict[str, Any]) -> None:
    """Publish trades and wait until they are durable."""
    producer = made.settings.client().producer()
    await producer.start()
    for record in records:
        whole = {"account": ACCOUNT, "instrument": PERPETUAL.instrument, "side": "buy", "ts_event": time.time_ns()} | record
        await producer.send_and_wait(made.settings.topics()["trades"], json.dumps(whole).encode(), ACCOUNT.encode())
    await producer.stop()


def funding(trade_id: str, amount: str, currency: str = "USD", **more: Any) -> dict[str, Any]:
    """Return a booking of funding: paid above 0."""
    return {"trade_id": trade_id, "action": "funding", "quantity": "0", "price": "0",
            "fees": [{"amount": amount, "currency": currency}]} | more


def test_funding_is_booked_once_and_is_carry(made: Installation) -> None:
    asyncio.run(made.create())
    asyncio.run(publish_reference(made.settings.client(), made.settings.topics(), [PERPETUAL], []))
    worker = made.worker("positions")
    for process in (worker, made.worker("marks", "m"), made.worker("risk", "r")):
        process.wait_ready()
    paid = funding("F1", "12.5")
    fill = {"trade_id": "T1", "quantity": "10", "price": "40000", "fees": [{"amount": "3", "currency": "USD"}]}
    asyncio.run(send(made, fill, paid, paid, funding("F2", "-2.25"), funding("F3", "4"),
                     funding("bad", "1", quantity="5"), funding("none", "1", fees=[])))
    asyncio.run(made.quiesce())
    worker.kill()
    asyncio.run(send(made, paid, {"trade_id": "X3", "action": "bust", "ref_trade_id": "F3", "quantity": "0", "price": "0"}))
    made.worker("positions", "b").wait_ready()
    asyncio.run(made.assert_exact())
    record = asyncio.run(made.newest("positions"))[KEY]
    assert record["funding"] == {"USD": pytest.approx(10.25)} and record["fees"] == {"USD": 3.0}
    assert (record["quantity"], record["trades"], record["average_price"], record["realised_pnl"]) == ("10", 1, 40_000.0, 0.0)

    gateway = made.start("gateway", "--port", "0").wait_ready()
    url = next(line for line in gateway.lines if "READY" in line).split()[-1]
    asyncio.run(quotes(made, {PERPETUAL.instrument: 40_100.0}))

    def pnl() -> dict[str, Any]:
        reply = httpx.get(f"{url}/api/risk/firm")
        return dict(reply.json()["pnl"]) if reply.status_code == 200 else {}

    wait_for(lambda: pnl().get("unrealised") == pytest.approx(1_000.0))
    seen = pnl()
    assert seen["carry"] == pytest.approx(-10.25) and seen["funding"] == pytest.approx(10.25) and seen["fees"] == 3.0
    assert seen["total"] == pytest.approx(1_000 - 3 - 10.25) and seen["day"] == pytest.approx(seen["total"])
    assert seen["price"] == pytest.approx(1_000 - 3)


def test_what_a_bond_earns_overnight_is_carry_and_the_roll_books_it_once(made: Installation) -> None:
    bond = Instrument(instrument="NOTE", asset_class="bond", currency="USD", quantity_increment=Decimal(1), coupon=Decimal("4.5"),
                      multiplier=Decimal("0.01"), maturity="2034-05-15", day_count="30E/360", calendar="WEEKENDS", settlement_days=1,
                      prior_close=Decimal(99))
    key, day = f"{ACCOUNT}|NOTE", made.settings.trading_day()
    today = day.begin_ns(time.time_ns())
    before, bought = day.begin_ns(today - 1), day.begin_ns(day.begin_ns(today - 1) - 1)
    paper = FixedIncome(Market("USD"))
    paper.add(bond)
    dates = [day.date_of(t) for t in (bought, before, today)]
    a_day, now_earned = (10_000 * paper.interest("NOTE", since, until)[0] for since, until in itertools.pairwise(dates))

    async def run() -> None:
        await made.create()
        await publish_reference(made.settings.client(), made.settings.topics(), [bond], [])
        worker = made.worker("positions").wait_ready()
        await send(made, {"trade_id": "B1", "instrument": "NOTE", "quantity": "1000000", "price": "98.5", "ts_event": bought + 1})
        await made.quiesce()
        assert (await roll(made.settings, before, False, "ops", "a day"))["interest"] == 0, "bought then: nothing was earned"
        await made.quiesce()
        report = await roll(made.settings, today, False, "ops", "the next day")
        assert report["interest"] == (1 if a_day else 0) and report["without_interest"] == []
        worker.kill()
        await roll(made.settings, today, False, "ops", "the same again, beside a kill")
        made.worker("positions", "b").wait_ready()
        await made.quiesce()
        await made.assert_exact()
        record = (await made.newest("positions"))[key]
        assert record["funding"] == record["opening_funding"] == ({"USD": pytest.approx(-a_day)} if a_day else {})

    asyncio.run(run())
    for process in (made.worker("marks", "m"), made.worker("risk", "r")):
        process.wait_ready()

    def pnl() -> dict[str, Any]:
        asyncio.run(quotes(made, {"NOTE": 99.5}))
        row = asyncio.run(made.newest("risk")).get(f"account:{ACCOUNT}")
        return dict(row["pnl"]) if row else {}

    wait_for(lambda: pnl().get("unrealised") == pytest.approx(10_000.0))
    seen = pnl()
    assert seen["interest"] == seen["carry"] == pytest.approx(now_earned) and seen["funding"] == pytest.approx(-a_day)
    assert seen["day"] == pytest.approx(10_000 * 0.5 + now_earned)
    assert seen["total"] == pytest.approx(10_000 + a_day + now_earned)


def test_bad_funding_is_quarantined_with_what_was_expected(made: Installation) -> None:
    asyncio.run(made.create())
    asyncio.run(publish_reference(made.settings.client(), made.settings.topics(), [PERPETUAL], []))
    made.worker("positions").wait_ready()
    asyncio.run(send(made, funding("bad", "1", quantity="5"), funding("none", "1", fees=[]), funding("good", "1")))
    asyncio.run(made.quiesce())
    refused = asyncio.run(made.newest("quarantine"))
    assert len(refused) == 2
    assert all(r["reason"] == QuarantineReason.BAD_FIELD.value and "expected 0 and at least one amount" in r["detail"] for r in refused.values())
    assert asyncio.run(made.newest("positions"))[KEY]["funding"] == {"USD": 1.0}

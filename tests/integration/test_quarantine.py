"""Trades that came before their reference data: seen, explained, brought back once, over a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from app.quarantine import Notices
from app.reference_files import publish_reference
from schemas.records import Account
from tests.integration.harness import ROOT, Installation
from tests.integration.test_gateway_writes import wait_until

pytestmark = pytest.mark.kafka
LATE = Account(account="LATE", book="B0", desk="D0", strategy="S0", fund="F0", base_currency="USD")
WHY = "the account is there now"
RISK, READER = "risk-token-of-sixteen", "reader-token-sixteen"


def command(made: Installation, *arguments: str, expect: int = 0) -> Any:
    done = subprocess.run([sys.executable, "-m", "app", "quarantine", *arguments, "--json"], cwd=ROOT, env=os.environ | made.environment(), text=True, capture_output=True)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout or "null")


def test_trades_before_their_account_come_back_once(made: Installation) -> None:
    asyncio.run(made.create())
    instrument = next(iter(asyncio.run(made.newest("reference.instruments"))))
    trades = [{"trade_id": f"Q{k}", "account": "LATE", "instrument": instrument, "side": "buy", "quantity": "1000", "price": "1", "ts_event": time.time_ns()} for k in range(3)]

    async def send() -> None:
        producer = made.settings.client().producer()
        await producer.start()
        await producer.send_and_wait(made.settings.topics()["trades"], json.dumps(trades[:2]).encode(), b"LATE")
        await producer.send_and_wait(made.settings.topics()["trades"], json.dumps(trades[2]).encode(), b"LATE")
        await producer.stop()

    worker = made.worker().wait_ready()
    gateway = made.start("gateway", "--port", "0", DESKRISK_API_TOKENS=f"{RISK}:rita:risk,{READER}:ron:").wait_ready()
    url = next(line for line in gateway.lines if "READY" in line).split()[-1]
    asyncio.run(send())
    found = wait_until(lambda: (f := command(made, "show", "--topic", "trades", "--reason", "unknown_account")) and len(f["records"]) == 3 and f)
    assert found["waiting"][0]["count"] == 3 and {r["field"] for r in found["records"]} == {"account"}
    first = found["records"][0]["id"]
    assert command(made, "explain", first)["what_to_do"].startswith("publish the account")
    assert any("quarantine retry --all --topic trades --reason unknown_account" in line for line in asyncio.run(Notices(made.settings).look()))
    asked = {name: httpx.get(f"{url}/api/quarantine", headers={"Authorization": f"Bearer {token}"} if token else {}) for name, token in (("risk", RISK), ("reader", READER), ("nobody", ""))}
    assert [asked[x].status_code for x in ("risk", "reader", "nobody")] == [200, 403, 401]
    assert [x["count"] for x in asked["risk"].json()["waiting"] if x["reason"] == "unknown_account"] == [3]
    again = command(made, "retry", first, "--why", WHY)["records"]  # too early: it is refused once more
    assert again[0]["done"]
    linked = wait_until(lambda: [r for r in command(made, "show", "--topic", "trades")["records"] if r["retry_of"] == first])
    assert linked[0]["state"] == "again"
    asyncio.run(publish_reference(made.settings.client(), made.settings.topics(), [], [LATE]))
    assert not any(r["done"] for r in command(made, "retry", "--all", "--topic", "trades", "--dry-run")["records"])
    lines = command(made, "retry", "--all", "--topic", "trades", "--why", WHY)["records"]
    assert len(lines) == 3 and all(r["done"] for r in lines)
    command(made, "retry", first, "--why", WHY, expect=1)  # was brought back: not a second time
    assert command(made, "retry", "--all", "--topic", "trades", "--why", WHY)["records"] == []
    rows = wait_until(lambda: (f := asyncio.run(made.newest("positions")).get(f"LATE|{instrument}")) and float(f["quantity"]) == 3_000 and f)
    assert rows["trades"] == 3
    for process in (worker, gateway):
        process.stop()

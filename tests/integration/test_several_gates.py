"""Several gates hold one limit together: what one let through counts at the others, through a kill and after it, once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import ACCOUNTS, Installation
from tests.integration.test_gate_ownership import gate, open_market
from tests.integration.test_order_path import made, order, set_limit
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
__all__ = ["made"]
number = iter(range(10**6))


async def ask(path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    answers = [json.loads(await reader.readline()) for _ in rows]
    writer.close()
    return answers


def buy(account: str, quantity: int, **more: Any) -> dict[str, Any]:
    k = next(number)
    return order(f"s{k}", account, quantity=quantity, price=99 - k % 100 * 0.001, instrument="I01", **more)


async def until(path: Path, account: str, quantity: int, want: list[tuple[str, str]]) -> None:
    """Ask without effect until the gate says that; it has what others hold a moment later."""
    deadline, said = time.monotonic() + PATIENCE_S, None
    while said != want:
        assert time.monotonic() < deadline, (said, want)
        await asyncio.sleep(0.05)
        try:
            (answer,) = await ask(path, buy(account, quantity, dry_run=True))
        except (OSError, json.JSONDecodeError):
            continue
        said = [(r["code"], r["measured"]) for r in answer.get("reasons", [])] if "outcome" in answer else [("none", answer["error"])]


async def owned(path: Path) -> set[str]:
    answers = await ask(path, *(buy(a.account, 1, dry_run=True) for a in ACCOUNTS))
    return {a.account for a, answer in zip(ACCOUNTS, answers, strict=True) if "outcome" in answer}


def test_what_one_gate_let_through_counts_at_the_others_through_a_kill(made: Installation, tmp_path: Any) -> None:
    paths = [tmp_path / "a.sock", tmp_path / "b.sock"]

    async def scenario() -> None:
        async with open_market(made):
            for limit_id, metric, value in (("FG", "gross", 2_000), ("FD", "daily_quantity", 24)):
                await set_limit(made.settings, {"limit_id": limit_id, "node": "firm", "metric": metric, "limit": value, "reason": "held by several gates"}, "r")
            first, _ = await asyncio.gather(*(gate(made, path.stem, DESKRISK_GATE_SOCKET=str(path)) for path in paths))
            deadline, mine = time.monotonic() + PATIENCE_S, [set[str](), set[str]()]
            while not (mine[0] and mine[1] and len(mine[0] | mine[1]) == len(ACCOUNTS)):
                assert time.monotonic() < deadline, mine
                await asyncio.sleep(0.2)
                mine = [await owned(path) for path in paths]
            assert not mine[0] & mine[1]
            x, y = sorted(mine[0])[0], sorted(mine[1])[0]
            (answer,) = await ask(paths[0], works := buy(x, 12))
            assert answer["outcome"] == "accept"
            await until(paths[1], y, 9, [("GROSS_EXPOSURE", "2100")])
            (answer,) = await ask(paths[1], buy(y, 8))
            assert answer["outcome"] == "accept"
            await until(paths[0], x, 1, [("GROSS_EXPOSURE", "2100")])
            first.kill()  # its orders work on: with nobody, then with the other
            await until(paths[1], y, 1, [("GROSS_EXPOSURE", "2100")])
            await until(paths[1], x, 1, [("GROSS_EXPOSURE", "2100")])
            await asyncio.sleep(1.0)
            await until(paths[1], x, 1, [("GROSS_EXPOSURE", "2100")])
            (answer,) = await ask(paths[1], buy(x, 1, action="cancel", ref_order_id=works["order_id"]))
            assert answer["outcome"] == "accept"
            await until(paths[1], y, 5, [("DAILY_QUANTITY", "25")])
            await gate(made, "a", DESKRISK_GATE_SOCKET=str(paths[0]))  # and when the killed one is back
            for path in paths:
                deadline = time.monotonic() + PATIENCE_S
                while not (mine := sorted(await owned(path))):
                    assert time.monotonic() < deadline, path
                    await asyncio.sleep(0.2)
                await until(path, mine[0], 5, [("DAILY_QUANTITY", "25")])
                await until(path, mine[0], 4, [])

    asyncio.run(scenario())

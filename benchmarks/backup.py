"""A whole installation to a folder and back: trades folded, backed up, restored to empty topics, proved."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from app.brokers import Broker
from app.migration import backup, restore
from benchmarks._common import arguments, finish, produce, scratch_broker, wait_committed
from benchmarks.engine import prepare, start_worker

TRADES = {"smoke": 20_000, "real": 1_000_000}


async def measure(broker: Broker, folder: Path, size: str, seed: int) -> dict[str, Any]:
    """Fold, back up, restore."""
    settings, client, trades = await prepare(broker, folder, seed)
    count = TRADES[size]
    await produce(client, settings.topics()["trades"], trades, count)
    worker = start_worker(broker, folder)
    try:
        await wait_committed(client, settings.group("positions"), settings.topics()["trades"], count, 300, [])
    finally:
        worker.stop()
    copy = folder / "backup"
    began = time.monotonic()
    await backup(settings, copy)
    written = time.monotonic()
    report = await restore(settings.model_copy(update={"prefix": "again-"}), copy)
    done = time.monotonic()
    assert report["differences"] == 0, report
    return {"trades": count, "positions": report["positions"], "backup_s": round(written - began, 2),
            "restore_s": round(done - written, 2), "records_restored": report["records"],
            "folder_mb": round(sum(f.stat().st_size for f in copy.iterdir()) / 1e6, 1), "differences": 0,
            "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        finish(args, asyncio.run(measure(broker, folder, args.size, args.seed)))


if __name__ == "__main__":
    main()

"""Trades through the position stage, all guarantees on: JSON, 500 accounts x 200 instruments, 8 partitions.

The log is filled first; then one worker process reads it, beside the broker on the same cores. The rate is counted
from the worker's taking of the partitions until the last record's transaction is committed. Stock Faust folds the
same topic in the same run; with ``--size real`` Quix Streams and Kafka Streams run their own scripts as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.brokers import Broker
from app.reference_files import publish_reference
from app.settings import Settings
from benchmarks._common import (
    READY_S,
    ROOT,
    PeerTrades,
    Worker,
    arguments,
    finish,
    produce,
    scratch_broker,
    wait_committed,
)
from schemas.records import Account, Instrument
from tables.kafka import KafkaClient, create_topics

ACCOUNTS, INSTRUMENTS, PARTITIONS = 500, 200, 8
TRADES = {"smoke": 400_000, "real": 10_000_000}
STOCK_SECONDS = {"smoke": 6, "real": 20}
PEERS = {"quix-500k": "quix", "ks-eos-1": "kstreams_eos"}


async def prepare(broker: Broker, folder: Path, seed: int) -> tuple[Settings, KafkaClient, PeerTrades]:
    """Create the topics and the reference data of the workload."""
    s = Settings(brokers=broker.address, partitions=PARTITIONS, data_dir=folder / "data")
    client = KafkaClient(broker.address)
    await create_topics(client, "", PARTITIONS, s.horizon_ms)
    trades = PeerTrades(seed, ACCOUNTS, INSTRUMENTS, PARTITIONS)
    await publish_reference(
        client, s.topics(),
        [Instrument(instrument=n, asset_class="equity", currency="USD", quantity_increment=Decimal(1)) for n in
         trades.instruments],
        [Account(account=n, book=f"B{i % 50}", desk=f"D{i % 20}", strategy=f"S{i % 10}", fund=f"F{i % 5}")
         for i, n in enumerate(trades.accounts)])
    return s, client, trades


def start_worker(broker: Broker, folder: Path) -> Worker:
    """Start the position worker under measurement."""
    worker = Worker(["worker", "--roles", "positions"], {
        "DESKRISK_BROKERS": broker.address, "DESKRISK_DATA_DIR": str(folder / "data"),
        "DESKRISK_LOG_LEVEL": "error"})
    assert worker.ready.wait(READY_S), "the worker did not come up"
    return worker


async def measure(broker: Broker, folder: Path, size: str, seed: int) -> dict[str, Any]:
    """Fill the log, run one worker over it."""
    s, client, trades = await prepare(broker, folder, seed)
    count = int(os.environ.get("DESKRISK_BENCH_TRADES") or TRADES[size])
    started = time.monotonic()
    await produce(client, "trades", trades, count)
    print(f"  {count:,} trades on the log after {time.monotonic() - started:.0f} s", file=sys.stderr)
    worker = start_worker(broker, folder)
    t0 = time.monotonic()
    samples: list[tuple[float, int]] = [(t0, 0)]
    try:
        done = await wait_committed(client, s.group("positions"), "trades", count, 600, samples)
        rss_peak, cpu = worker.rss_mb(), worker.cpu_s()
        await asyncio.sleep(8)
        rss = worker.rss_mb()
    finally:
        worker.stop()
    seconds = done - t0
    half = next((t, n) for t, n in samples if n >= count / 2)
    print("  progress " + " ".join(f"{t - t0:.1f}s:{n // 1000}k" for t, n in samples[::8]), file=sys.stderr)
    state = await durable_state(client)
    assert state["quantity_sum"] == trades.quantity_sum, (state, trades.quantity_sum)
    return {"trades": count, "seconds": round(seconds, 2), "trades_per_s": round(count / seconds),
            "trades_per_s_second_half": round((count - half[1]) / max(done - half[0], 1e-9)),
            "positions": state["positions"], "rss_mb": round(rss), "rss_mb_under_load": round(rss_peak), "worker_cpu_s": round(cpu, 1),
            "result_hash": state["hash"], "broker": broker.name}


async def durable_state(client: KafkaClient) -> dict[str, Any]:
    """Read the changelog back: durability is what it says, not what memory held."""
    from aiokafka.structs import TopicPartition

    from models.position_pack import HEADER_BYTES, ROW_BYTES
    from tables.restore import read_changelogs

    found = await read_changelogs(client, {TopicPartition("positions-changelog", p): 0 for p in range(PARTITIONS)})
    import numpy as np

    from models.fills import POSITION_DTYPE
    digest, total, count = hashlib.sha256(), 0, 0
    for tp in sorted(found):
        rows = {k: v for k, v in found[tp].rows.items() if k[:1] == b"P" and v is not None}
        for key in sorted(rows):
            row = np.frombuffer(rows[key][HEADER_BYTES : HEADER_BYTES + ROW_BYTES], POSITION_DTYPE)[0]
            total += int(row["quantity"])
            count += 1
            digest.update(key + row["quantity"].tobytes() + row["realised_pnl"].tobytes())
    return {"quantity_sum": total, "positions": count, "hash": digest.hexdigest()[:16]}


def stock_faust(broker: Broker, folder: Path, size: str) -> dict[str, Any]:
    """Run stock Faust over the same topic for a while."""
    environment = os.environ | {"RUN": f"stock-{time.time_ns()}", "BROKER": broker.address, "TOPIC": "trades",
                                "DATA": str(folder / "stock"), "PARTITIONS": str(PARTITIONS),
                                "SECONDS": str(STOCK_SECONDS[size])}
    (folder / "stock").mkdir()
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks/peers/stock_faust.py"), "worker", "-l", "error"],
                          env=environment, cwd=folder, capture_output=True, text=True, timeout=180)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"stock Faust gave no result: {done.stderr[-800:]}")
    return dict(json.loads(line.removeprefix("RESULT ")))


def other_peers(broker: Broker, folder: Path) -> dict[str, Any]:
    """Run the peers' own scripts where the shared folder is; their topics are of the same shape."""
    script = ROOT.parent / "shared" / "peers" / "run.sh"
    if not script.exists():
        return {"peers": "shared/peers is absent: Quix Streams and Kafka Streams were not run"}
    out: dict[str, Any] = {}
    results = folder / "peers.jsonl"
    for peer, name in PEERS.items():
        environment = os.environ | {"PEERS_BROKER": broker.address, "PEERS_DATA": str(folder / "peers"),
                                    "RESULTS": str(results), "LIMIT": "150"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(["bash", str(script), peer], env=environment, capture_output=True, text=True)
        lines = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
        found = next((x for x in reversed(lines) if x.get("name") == peer), {})
        if "eps" in found:
            durable = found["events"] / found["secs_durable"] if found.get("secs_durable") else found["eps"]
            out[f"{name}_per_s"], out[f"{name}_durable_per_s"] = found["eps"], round(durable)
        else:
            out[f"{name}_error"] = f"exit {done.returncode}: {(found.get('error') or done.stderr or done.stdout)[-300:]}"
    return out


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, args.size, args.seed))
        if args.peers:
            stock = stock_faust(broker, folder, args.size)
            report |= {"stock_faust_per_s": stock["events_per_s"],
                       "ratio_stock_faust": round(report["trades_per_s"] / stock["events_per_s"], 1)}
            if args.size == "real":
                report |= other_peers(broker, folder)
                for name in PEERS.values():
                    if f"{name}_per_s" in report:
                        report[f"ratio_{name}"] = round(report["trades_per_s"] / report[f"{name}_per_s"], 1)
    finish(args, report)


if __name__ == "__main__":
    main()

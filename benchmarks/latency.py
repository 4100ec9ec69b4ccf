"""Trade on the broker to position on the stream, and tick to P&L: open loop, from the times records were due."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.load import run_load
from app.local import Installation
from app.settings import Settings
from benchmarks._common import arguments, finish, scratch_broker

LOADS = {"smoke": (500.0, 5_000.0, 8.0), "real": (5_000.0, 50_000.0, 60.0)}
ACCOUNTS, INSTRUMENTS = 500, 100
#: dealers, each of whom looks at a desk of its own
SCOPES = ("desk:LDK0", "desk:LDK5", "desk:LDK10", "desk:LDK15")
#: the JVM and every process compile and fill caches first; what they do then is not what is measured
WARM_UP_S = {"smoke": 4.0, "real": 20.0}
SETTLE_S = {"smoke": 1.0, "real": 10.0}


async def measure(brokers: str, size: str, seed: int) -> dict[str, Any]:
    """Bring all roles up, load them, read the stream."""
    with tempfile.TemporaryDirectory(prefix="deskrisk-latency-") as folder:
        settings = Settings(brokers=brokers, data_dir=Path(folder), gateway_port=0)
        installation = Installation(settings, False, lambda text: print(f"  {text}", file=sys.stderr))
        try:
            await installation.start()
            trades, ticks, seconds = LOADS[size]
            # the positions of a firm are there in the morning: the warm-up opens all of them
            await run_load(settings, trades, ticks, WARM_UP_S[size], ACCOUNTS, INSTRUMENTS, None, seed + 1, opening=True)
            await asyncio.sleep(SETTLE_S[size])
            report = await run_load(settings, trades, ticks, seconds, ACCOUNTS, INSTRUMENTS,
                                    installation.addresses["gateway"], seed, SCOPES)
            report["restarts"] = sum(c.restarts for c in installation.supervisor.children)
        finally:
            await installation.stop()
    return report


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, _):
        report = asyncio.run(measure(broker.address, args.size, args.seed))
    finish(args, json.loads(json.dumps(report)) | {"broker": broker.name})


if __name__ == "__main__":
    main()

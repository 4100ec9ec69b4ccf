"""The latency ledger of the order path: every stage inside the gate and every door into it, written to docs/latency.md.

Stages are timed one by one over the same orders in one process; doors are what `bench orders` measured in this run.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from benchmarks._common import ROOT, arguments, finish, machine, scratch_broker
from benchmarks.gate import gate_book, gate_order
from benchmarks.orders import measure
from benchmarks.risk import quantiles
from models.gate.kernel import check_order
from models.gate.reasons import reasons_of
from models.gate.state import CHECKS
from schemas.codec import decoder_of, encode
from schemas.records import AsOf, Decision, Order

STAGES = ("decode the order", "its names to columns", "record of what the kernel reads", f"kernel, all {CHECKS} checks", "reasons in words",
          "reserve what it may trade", "encode the decision")
_order = decoder_of(Order)


def stages(count: int) -> dict[str, dict[str, float]]:
    """Return quantiles of every stage, us."""
    gate, now = gate_book()
    took = np.empty((len(STAGES), count))
    raws = [encode(gate_order(k)) for k in range(count)]
    for k, raw in enumerate(raws):
        t = [time.perf_counter_ns()]
        order = _order.decode(raw)
        t.append(time.perf_counter_ns())
        asked = gate._fill(order, now + k)
        t.append(time.perf_counter_ns())
        inputs = gate._inputs(asked)
        t.append(time.perf_counter_ns())
        hard = int(check_order(gate._address, 0))
        t.append(time.perf_counter_ns())
        reasons = reasons_of(hard, gate.state.results[0], order, gate.state.node_names, gate._limit_ids)
        t.append(time.perf_counter_ns())
        gate._place(order, asked, now + k)
        t.append(time.perf_counter_ns())
        encode(Decision(order_id=order.order_id, account=order.account, instrument=order.instrument, outcome="accept", reasons=reasons, effect={},
                        snapshot_id=1, limits_version=1, ts_event=now, ts_decision=now, service_ns=1, inputs=inputs, as_of=AsOf(0, k), order=order))
        t.append(time.perf_counter_ns())
        took[:, k] = np.diff(t)
        gate.release(order.order_id)
    return {name: quantiles(row / 1e3) for name, row in zip(STAGES, took, strict=True)}


def document(inside: dict[str, dict[str, float]], doors: dict[str, Any], size: str) -> str:
    """Return the ledger as a document."""
    lines = ["# Latency of the order path", "", "Written by `make bench ARGS=\"ledger --size real\"`; do not edit.", "",
             f"Machine: {machine()}. Size: {size}. Broker: {doors['broker']}, on the same cores as everything else.", "",
             "## Inside the gate, microseconds an order", "", "| stage | p50 | p99 | p99.9 | p99.99 | worst |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(f"{q[k]:.3g}" for k in ("p50", "p99", "p99_9", "p99_99", "max")) + " |" for name, q in inside.items()]
    lines += ["", f"## Doors, open loop, from when an order was due; {doors['orders_per_s']:,} orders/s through Kafka, "
              f"{doors['gate_orders_per_s']:,} through the socket (a tenth of it over HTTP), quotes and trades beside; gate "
              f"{'and its client at real-time priority' if doors['client_realtime'] else 'without real-time priority'}", "",
              "| door | p50 | p99 | p99.9 | p99.99 | worst |", "|---|---|---|---|---|---|"]
    names = {"kafka_ms": "`orders` to `decisions`, ms", "overload_ms": "the same, ten times as many for two seconds, ms", "local_gate_us": "Unix socket, us", "http_gate_us": "HTTP, us",
             "local_gate_shared_us": "Unix socket, client at no priority, us", "http_gate_shared_us": "HTTP, client at no priority, us",
             "halt_to_refusal_ms": "halt written to first refusal, ms", "breach_to_stream_ms": "breaching trade to alert on the stream, ms"}
    lines += [f"| {text} | " + " | ".join(f"{doors[key][k]:.4g}" for k in ("p50", "p99", "p99_9", "p99_99", "max")) + " |" for key, text in names.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        doors = asyncio.run(measure(broker, folder, args.size))
    inside = stages(2_000 if args.size == "smoke" else 50_000)
    if args.size == "real":
        (ROOT / "docs" / "latency.md").write_text(document(inside, doors, args.size))
    finish(args, {"bench": "ledger", "stages_us": inside, "doors": doors})


if __name__ == "__main__":
    main()

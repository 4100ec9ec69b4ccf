"""`deskrisk backtest`: VaR of each day against the P&L of the next, by node, from the log's store or from a file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from app.settings import Settings
from app.sink.clickhouse import ServerClickHouse
from models.risk.backtest import backtest, hits_of

#: the day's last VaR is held against the change of total P&L from that day's end to the next one's
SQL = """SELECT toDate(ts) AS day, argMax(var_99, (ts, offset)), argMax(total, (ts, offset)) FROM deskrisk.risk
WHERE node = %(node)s AND var_99 IS NOT NULL AND total IS NOT NULL GROUP BY day ORDER BY day"""


class NoData(ValueError):
    """There is nothing to test: what was looked for where."""


def from_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (pnl, var) of a CSV with the columns ``pnl`` and ``var``, a line a day, the oldest first.

    An empty cell is missing (NaN): its day is left out.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"pnl", "var"} <= set(rows[0]):
        found = sorted(rows[0]) if rows else "empty"
        raise NoData(f"{path}: expected columns pnl and var and a line a day, was {found}")
    pnl, var = ([_cell(path, line, name, row[name]) for line, row in enumerate(rows, 2)] for name in ("pnl", "var"))
    return np.array(pnl), np.array(var)


def _cell(path: Path, line: int, name: str, text: str | None) -> float:
    """Return the number of a cell; NaN where it is empty."""
    try:
        value = float(text) if text and text.strip() else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and text and text.strip()):
        raise NoData(f"{path}:{line}: {name}: expected a number or an empty cell, was {text!r}")
    return value


def from_store(settings: Settings, node: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (pnl, var) of a node's days in ClickHouse."""
    if settings.clickhouse_url is None:
        raise NoData("backtest: expected DESKRISK_CLICKHOUSE_URL, or a file with pnl and var")
    if settings.var_horizon_days != 1:
        raise NoData(f"backtest: expected a horizon of one day (DESKRISK_VAR_HORIZON_DAYS), was "
                     f"{settings.var_horizon_days}: a day's loss says nothing about it")
    store = ServerClickHouse(settings.clickhouse_url.get_secret_value())
    try:
        rows = store.select(SQL, {"node": node})
    finally:
        store.close()
    if len(rows) < 2:
        raise NoData(f"backtest: expected at least two days of {node!r} in deskrisk.risk, was {len(rows)}")
    totals = np.array([float(r[2]) for r in rows])
    return np.diff(totals), np.array([float(r[1]) for r in rows[:-1]])


def run_backtest(settings: Settings, node: str, file: Path | None, level: float) -> dict[str, Any]:
    """Return the report of a node."""
    pnl, var = from_file(file) if file is not None else from_store(settings, node)
    if (var < 0).any():
        raise NoData(f"var: expected positive losses, was {float(np.nanmin(var))!r}")
    hits = hits_of(pnl, var)
    if np.isnan(hits).all():
        raise NoData("backtest: expected a day on which pnl and var are known, was none")
    if not 0.5 <= level < 1.0:
        raise NoData(f"level: expected a confidence of at least 0.5 and below 1, was {level!r}")
    return {"node": node, "level": level} | _stated(backtest(hits, level))


def _stated(found: dict[str, Any]) -> dict[str, Any]:
    """Return a report without the statistics that its days are too few for."""
    return {k: v for k, v in found.items() if not (isinstance(v, float) and math.isnan(v))}

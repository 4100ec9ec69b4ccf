"""What is odd about a history: gaps, repeats, splits, zeros, prices below zero, outliers, another rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from app.history import DAYS, Levels, absolute_factors
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR

#: units that one unit became, or that became one
SPLITS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 28.0, 30.0, 40.0, 50.0, 100.0)
#: how far a move may be from that of a split: of the day itself
SPLIT_TOLERANCE = 0.06
#: a smaller step is no split, and a move of so many robust deviations is one, or an outlier
SPLIT_LEAST, DEVIATIONS = 1.4, 10.0
#: days without a record that are more than a weekend and holidays
GAP_DAYS = 6
#: the usual distance between days of a daily history
DAILY_MOST = 4
#: median absolute deviation to standard deviation of a normal distribution
_ROBUST = 1.4826
SHOWN = 20
#: holidays a day, at most: eighteen a year
HOLIDAYS = 18 / 250


def examine(levels: Levels) -> dict[str, Any]:
    """Return what is odd about a history, over all its days, and how each factor moves."""
    absolute = absolute_factors(levels)
    distances = np.array([(b - a).days for a, b in zip(levels.days, levels.days[1:], strict=False)])
    gaps = [{"after": levels.days[i].isoformat(), "days": int(distances[i])}
            for i in np.flatnonzero(distances > GAP_DAYS)]
    return {"name": levels.name, "days": len(levels.days), "first": levels.days[0].isoformat(),
            "last": levels.days[-1].isoformat(), "median_distance_days": float(np.median(distances)), "gaps": gaps,
            "weekdays_missing": _weekdays_missing(levels.days), "repeated": levels.repeated,
            "factors": [_factor(levels, k, bool(absolute[k])) for k in range(len(levels.factors))]}


def _weekdays_missing(days: Sequence[date]) -> int:
    """Return how many Mondays to Fridays from the first day to the last have no record, holidays among them."""
    span = int(np.busday_count(days[0], days[-1] + timedelta(days=1)))
    return span - sum(day.weekday() < 5 for day in days)


def _factor(levels: Levels, k: int, absolute: bool) -> dict[str, Any]:
    name, series = levels.factors[k], levels.values[:, k]
    is_level = name.startswith((VOLATILITY_FACTOR, RATE_FACTOR))
    known = np.flatnonzero(np.isfinite(series))
    moves = "absolute" if absolute or is_level else levels.moves.get(name, "relative")
    out: dict[str, Any] = {"factor": name, "moves": moves, "values": len(known)}
    if not len(known):
        return out
    inside = levels.days[known[0] : known[-1] + 1]
    values = series[known]
    days = [levels.days[i] for i in known]
    splits, outliers = _jumps(values, days, absolute or is_level)
    out |= {"first": days[0].isoformat(), "last": days[-1].isoformat(), "missing": len(inside) - len(known),
            "longest_gap": int(np.diff(known, prepend=known[0] - 1).max() - 1), "zeros": int((values == 0.0).sum()),
            "below_zero": 0 if is_level else int((values < 0.0).sum()), "splits": splits, "outliers": outliers}
    return out


def _jumps(values: np.ndarray, days: list[date],
           by_difference: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return moves that look like splits, and moves far beyond all others."""
    if len(values) < 3:
        return [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.diff(values) if by_difference else np.diff(np.log(values))
    moves = np.where(np.isfinite(moves), moves, 0.0)
    usual = _ROBUST * float(np.median(np.abs(moves - np.median(moves))))
    far = np.flatnonzero(np.abs(moves) > DEVIATIONS * (usual or float(np.std(moves))))
    splits, outliers = [], []
    for i in far.tolist():
        ratio = 0.0 if by_difference else float(np.exp(-moves[i]))
        near = min(SPLITS, key=lambda s: min(abs(ratio / s - 1), abs(ratio * s - 1))) if ratio > 0.0 else 0.0
        tolerance = 0.0 if not near else min(abs(ratio / near - 1), abs(ratio * near - 1))
        where = {"day": days[i + 1].isoformat(), "from": float(values[i]), "to": float(values[i + 1])}
        if near and max(ratio, 1 / ratio) > SPLIT_LEAST and tolerance < SPLIT_TOLERANCE:
            splits.append(where | {"like": f"{near:g} for 1" if ratio > 1.0 else f"1 for {near:g}"})
        else:
            outliers.append(where)
    return splits, outliers


def findings(levels: Levels, days: int = DAYS) -> list[str]:
    """Return what is odd about the newest days, a line each; of many factors the first ones."""
    first = max(len(levels.days) - days - 1, 0)
    found = examine(replace(levels, days=levels.days[first:], values=levels.values[first:]))
    out = []
    if found["median_distance_days"] > DAILY_MOST:
        out.append(f"expected a value a day, its days are {found['median_distance_days']:g} apart: "
                   "a scenario is a move from one to the next")
    elif found["weekdays_missing"] > HOLIDAYS * found["days"]:
        out.append(f"{found['weekdays_missing']} weekdays have no record")
    if found["gaps"]:
        longest = max(found["gaps"], key=lambda g: g["days"])
        out.append(f"{len(found['gaps'])} gaps of more than {GAP_DAYS} days, the longest {longest['days']} days after "
                   f"{longest['after']}")
    if found["repeated"]:
        out.append(f"{found['repeated']} values are said twice")
    for factor in found["factors"]:
        name = factor["factor"]
        if not factor["values"]:
            out.append(f"{name}: no value")
            continue
        out += [f"{name}: {s['day']}: {s['from']:g} to {s['to']:g} looks like a split, {s['like']}"
                for s in factor["splits"]]
        out += [f"{name}: {o['day']}: {o['from']:g} to {o['to']:g} is far beyond its other moves"
                for o in factor["outliers"]]
        for word, what in (("missing", "days are missing, the last value stands"), ("zeros", "values are 0"),
                           ("below_zero", "prices are below 0")):
            if factor[word]:
                out.append(f"{name}: {factor[word]} {what}")
        if factor["moves"] == "absolute" and not name.startswith((VOLATILITY_FACTOR, RATE_FACTOR)):
            out.append(f"{name}: moves by differences")
    return out if len(out) <= SHOWN else [*out[:SHOWN], f"and {len(out) - SHOWN} more (`deskrisk history`)"]

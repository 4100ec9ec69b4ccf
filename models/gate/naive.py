"""The obvious version of the gate: plain dicts and ifs, one rule after the other, as a risk manager would read them.

It is the oracle of the kernel and shares no code with it. Slow, and meant to stay so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.gate.state import FIGURES
from schemas.controls import Check

Row = dict[str, Any]
_TREE = ("book", "desk", "strategy", "fund", "firm", "dealer", "pm", "account")
_OF_INSTRUMENT = ("issuer", "sector", "asset_class", "currency", "pair")
#: what of a node of some role can only be limited where it has that role, and rests on its exposures
_LIMITED_BY_ROLE = {role: ["margin"] for role in (*_TREE, *_OF_INSTRUMENT)} | {
    "issuer": ["concentration", "margin"], "sector": ["concentration", "margin"]}


def naive_check(order: Row, account: Row | None, instrument: Row | None, position: Row, nodes: list[Row],
                settings: Row) -> tuple[set[Check], set[Check]]:
    """Return (hard, soft) reasons against an order.

    Parameters
    ----------
    nodes : every node the order lies under: ``role`` (account, trader, issuer, sector, counterparty, venue,
        instrument, asset_class, currency, pair, dealer, pm, the level's name, or
        ``share`` of what one of the tree has in an issuer or a sector), ``value`` and
        ``limit`` and ``soft`` by metric, ``state``, ``nav``, ``exposure_ns``, ``windows``: ``window_ns``, what was
        ``sent`` (ts_ns, value) and by ``others`` (count, value), ``limit`` and ``soft`` by metric
    """
    hard, soft = _unreadable(order, account, instrument), set[Check]()
    if hard or account is None or instrument is None:
        return hard, soft
    if instrument["positive"] and ((not order["market"] and order["price"] <= 0)
                                   or (order["stop"] and order["stop_price"] <= 0)):
        hard.add(Check.INVALID_ORDER)
    # ``size``: what it may still do to the position; one order's own limits are on the whole of it
    side, size, q = order["side"], max(order["quantity"] - order["executed"], 0), position["quantity"]
    if order["ts_ns"] - settings["positions_ns"] > settings["position_age_ns"]:
        hard.add(Check.STALE_POSITION)
    ref = next((instrument[k] for k in ("mid", "last", "prior_close") if not math.isnan(instrument[k])), math.nan)
    touch = instrument["ask"] if side > 0 else instrument["bid"]
    touch = ref if math.isnan(touch) else touch
    price = order["price"] if not order["market"] else touch
    # one that waits is worth what its stop price, or its limit, makes it worth; one that is reached waits no more
    stop = order["stop_price"]
    waits = order["stop"] and not (stop <= touch if side > 0 else stop >= touch)
    if waits and order["market"]:
        price = stop
    worth, paid = _worth(instrument, ref), instrument["unit"] * abs(price)
    if instrument["inverse"]:
        paid = instrument["unit"] / max(price, 1e-18)
    if math.isnan(worth):
        hard.add(Check.NO_REFERENCE_PRICE)
    else:
        _prices(hard, soft, order, instrument, ref, price, stop if waits else ref)
        worth = _worth(instrument, price) if waits else worth
    per = abs(worth)
    _states(hard, order, account, instrument, position, nodes, settings, size)
    if not order.get("permitted", True):
        hard.add(Check.TRADER_NOT_PERMITTED)
    if instrument["restricted"]:
        hard.add(Check.RESTRICTED)
    buys = position["working_buy"] + (size if side > 0 else 0)
    sells = position["working_sell"] + (size if side < 0 else 0)
    before = max(q + position["working_buy"], position["working_sell"] - q, 0)
    after = max(q + buys, sells - q, 0)
    smaller = order["quantity"] < order["replaced"]
    for found, long_limit, short_limit in ((hard, "long_limit", "short_limit"), (soft, "soft_long", "soft_short")):
        if side > 0 and size and not smaller and _above(q + buys, position[long_limit], abs(q), buys):
            found.add(Check.POSITION_LONG)
        if side < 0 and size and not smaller and _above(sells - q, position[short_limit], abs(q), sells):
            found.add(Check.POSITION_SHORT)
    if instrument["equity"] and side < 0 and _above(sells, max(q, 0), abs(q), sells):
        _short_sale(hard, order, instrument, price)
    if order["action"] == 0 and abs(order["ts_ns"] - order["same_ns"]) <= settings["duplicate_ns"]:
        hard.add(Check.DUPLICATE_ORDER)
    _meets_own(hard, order, position, price, waits)
    longer = (max(q + buys, 0) - max(q + position["working_buy"], 0)) * per
    shorter = (max(sells - q, 0) - max(position["working_sell"] - q, 0)) * per
    if worth < 0:  # a price below 0: who buys is paid, and has less than nothing
        longer, shorter = shorter, longer
    sides = [(check, metric, added) for check, metric, added in (
        (Check.LONG_EXPOSURE, "long", longer), (Check.SHORT_EXPOSURE, "short", shorter)) if added > 0]
    # with all that works on its side executed: does it lead away from flat, and to how much on its side?
    then, own_side = (q + position["working_buy"], q + buys) if side > 0 else (position["working_sell"] - q, sells - q)
    opens = size > 0 and own_side > 0 and (after > before or abs(own_side) >= abs(then) * (1 - 1e-12))
    units = (own_side if opens else after) - before
    margin = _margin(instrument, own_side * per) - _margin(instrument, before * per) if opens else 0.0
    for node in nodes:
        if node["role"] == "share":
            if opens and not smaller:
                _share(hard, soft, order, node, units * per, settings)
            continue
        for window in node["windows"]:
            _messages(hard, soft, order, window, order["quantity"] * paid)
        levered = 0.0 if instrument["base_cash"] else units * abs(instrument["unit_delta"])
        by_name = node["role"] in ("trader", "counterparty", "venue")
        lowers = smaller and (order["same_names"] or not by_name)
        cheaper = lowers and order["quantity"] * paid <= order["replaced"] * _was_paid(order, instrument)
        measures = _order_measures(order, node, lowers, cheaper, paid)
        here = after > before if by_name else opens
        if not lowers:
            measures += _measures(order, instrument, node, here, units * per, side * size, worth, margin, levered)
        _against(hard, soft, order, node, measures, [] if lowers else sides,
                 units * instrument["unit_var"] if here and not lowers else None, settings, lowers)
    if settings["limits_required"] and not _order_limits_are_set(nodes):
        hard.add(Check.LIMIT_NOT_SET)
    return hard, soft


def _order_limits_are_set(nodes: list[Row]) -> bool:
    named = [n for n in nodes if n["role"] != "share"]
    return all(any(not math.isnan(n["limit"][m]) for n in named) for m in ("order_quantity", "order_value"))


def _meets_own(hard: set[Check], order: Row, position: Row, price: float, waits: bool) -> None:
    own = position["best_sell"] if order["side"] > 0 else position["best_buy"]
    for met in [order["opposite"]] if waits else [own, order["opposite"]]:
        if math.isfinite(met) and (order["market"] or (price >= met if order["side"] > 0 else price <= met)):
            hard.add(Check.SELF_MATCH)


def _was_paid(order: Row, instrument: Row) -> float:
    """Return what one of the order that it replaces was paid with; NaN: that rested at no price."""
    if instrument["inverse"] and not math.isnan(order["was_price"]):
        return float(instrument["unit"] / max(order["was_price"], 1e-18))
    return float(instrument["unit"] * abs(order["was_price"]))


def _unreadable(order: Row, account: Row | None, instrument: Row | None) -> set[Check]:
    hard: set[Check] = set()
    if not (0 < order["quantity"] <= 1e18) or (not order["market"] and not abs(order["price"]) <= 1e18):
        hard.add(Check.INVALID_ORDER)
    if order["stop"] and not abs(order["stop_price"]) <= 1e18:
        hard.add(Check.INVALID_ORDER)
    if account is None:
        hard.add(Check.UNKNOWN_ACCOUNT)
    if instrument is None:
        hard.add(Check.UNKNOWN_INSTRUMENT)
    return hard


def _short_sale(hard: set[Check], order: Row, instrument: Row, price: float) -> None:
    if not instrument["shortable"]:
        hard.add(Check.SHORT_SALE_BAN)
    if not order["locate"]:
        hard.add(Check.SHORT_SALE_LOCATE)
    if instrument["price_test"] and not order["exempt"] and not price > instrument["bid"]:
        hard.add(Check.UPTICK)


def _against(hard: set[Check], soft: set[Check], order: Row, node: Row, measures: list[tuple[Check, float, str]],
             sides: list[tuple[Check, str, float]], var: float | None, settings: Row, lowers: bool) -> None:
    """Hold what was measured against the limits of a node; ``var``: what is added at most, None: nothing is opened."""
    for check, metric, more in sides:
        measures = [*measures, (check, node["value"][metric] + more, metric)]
    watched = [] if lowers else ["net", "delta", "vega", *(metric for _, metric, _ in sides)]
    if var is not None:
        measures = [*measures, (Check.VAR, node["value"]["var_hist"] + var, "var_hist")]
        watched += ["gross", "var_hist", "leverage", "credit", *_LIMITED_BY_ROLE.get(node["role"], [])]
    for check, measured, metric in measures:
        for found, bound in ((hard, node["limit"][metric]), (soft, node["soft"][metric])):
            # what is not known is within no limit; without a limit it does not matter
            if not math.isnan(bound) and (math.isnan(measured) or _above(measured, bound)):
                found.add(check)
    if any(not math.isnan(node[kind][m]) for m in watched for kind in ("limit", "soft")) and (
            order["ts_ns"] - node["exposure_ns"] > settings["exposure_age_ns"]):
        hard.add(Check.STALE_EXPOSURE)


def _messages(hard: set[Check], soft: set[Check], order: Row, window: Row, value: float) -> None:
    """Count the order among all of its window, which is divided in 31 parts and counts from the begin of one."""
    part_ns = math.ceil(window["window_ns"] / 31)
    begin_ns = (order["ts_ns"] // part_ns - 31) * part_ns
    sent = [v for ts, v in window["sent"] if ts >= begin_ns] + [0 if math.isnan(value) else value]
    for check, metric, measured in ((Check.MESSAGE_RATE, "message_count", len(sent) + window["others"][0]),
                                    (Check.VALUE_RATE, "message_value", sum(sent) + window["others"][1])):
        if _above(measured, window["limit"].get(metric, math.inf)):
            hard.add(check)
        if _above(measured, window["soft"].get(metric, math.inf)):
            soft.add(check)


def _share(hard: set[Check], soft: set[Check], order: Row, node: Row, added: float, settings: Row) -> None:
    limits = [(found, limit) for found, limit in ((hard, node["limit"]["concentration"]),
                                                  (soft, node["soft"]["concentration"])) if not math.isnan(limit)]
    for found, limit in limits:
        part = _part(node["value"]["gross"] + added, node["nav"])
        if math.isnan(part) or _above(part, limit):
            found.add(Check.CONCENTRATION)
        if order["ts_ns"] - node["exposure_ns"] > settings["exposure_age_ns"]:
            hard.add(Check.STALE_EXPOSURE)


def _worth(instrument: Row, price: float) -> float:
    """Return what one unit is worth at a price; beyond every figure it is not known."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        worth = float(np.float64(instrument["unit"]) / price if instrument["inverse"] else np.float64(
            instrument["unit"]) * (price + instrument["accrued"]) * instrument["discount"])
    return worth if abs(worth) <= 1e100 else math.nan


def _part(value: float, nav: float) -> float:
    """Return a share of a NAV: of nothing, of debts and of what is not known there is none."""
    return value / nav if nav > 0 else math.nan


def _margin(instrument: Row, notional: float) -> float:
    """Return the initial margin: every tier's rate on the slice of the notional that lies in it."""
    total, low = 0.0, 0.0
    for up_to, rate in instrument["tiers"]:
        if notional > low:
            total += (min(notional, up_to) - low) * rate
        low = up_to
    return total if notional <= low else math.nan


def _prices(hard: set[Check], soft: set[Check], order: Row, instrument: Row, ref: float, price: float,
            held_to: float) -> None:
    if instrument["stale"] or order["ts_ns"] - instrument["price_ns"] > instrument["age_max_ns"]:
        hard.add(Check.STALE_PRICE)
    band = max(instrument["collar_ticks"] * instrument["tick"], abs(held_to) * instrument["collar_bps"] * 1e-4)
    if _above((price - held_to) * order["side"], band, held_to):
        hard.add(Check.PRICE_COLLAR)
    bounds = [bound for bound in (instrument["soft_ticks"] * instrument["tick"],
                                  abs(held_to) * instrument["soft_bps"] * 1e-4) if not math.isnan(bound)]
    if bounds and _above((price - held_to) * order["side"], max(bounds), held_to):
        soft.add(Check.PRICE_COLLAR)
    for found, limit, low, high in ((hard, "drift_bps", "drift_low", "drift_high"),
                                    (soft, "soft_drift", "soft_low", "soft_high")):
        if not math.isnan(instrument[high]) and instrument[limit] > 0:
            moved = max(abs(ref - instrument[low]), abs(instrument[high] - ref))
            if _above(moved / max(abs(ref), 1e-300) * 1e4, instrument[limit]):
                found.add(Check.PRICE_DRIFT)


def _states(hard: set[Check], order: Row, account: Row, instrument: Row, position: Row, nodes: list[Row],
            settings: Row, size: float) -> None:
    states = [account["state"], instrument["state"], settings["state"], order.get("state", 0)]
    states += [n["state"] for n in nodes if n["role"] in ("trader", "counterparty", "venue", *_OF_INSTRUMENT)]
    if max(states) >= 2:
        hard.add(Check.HALTED)
    if max(states) == 1 or order["reduce_only"]:
        q = position["quantity"]
        left = abs(q) - (position["working_sell"] if q > 0 else position["working_buy"])
        if size > 0 and (q == 0 or order["side"] * q > 0 or _above(size, left, q)):
            hard.add(Check.REDUCING_ONLY)


def _above(measured: float, bound: float, *compared: float) -> bool:
    """Whether a figure is larger than another one, by more than the rest of sums and products of decimals."""
    return measured > bound + 1e-12 * max(map(abs, compared or (bound,)))


def _order_measures(order: Row, node: Row, lowers: bool, cheaper: bool, paid: float) -> list[tuple[Check, float, str]]:
    """Return what a node's limits on orders are held against: (check, measured, metric)."""
    v, whole = node["value"], order["quantity"]
    assert set(v) == set(FIGURES)
    more = max(whole - order["replaced"], 0)
    out = []
    if not lowers:
        out.append((Check.MAX_QUANTITY, whole, "order_quantity"))
    if not cheaper:
        out.append((Check.MAX_VALUE, whole * paid, "order_value"))
    if more > 0:
        out += [(Check.DAILY_QUANTITY, v["daily_quantity"] + more, "daily_quantity"),
                (Check.DAILY_VALUE, v["daily_value"] + more * paid, "daily_value")]
    if node["role"] == "trader" and order["algo"] >= 0:
        out.append((Check.REPEATED_EXECUTION, v["repeated_executions"] + 1, "repeated_executions"))
    if node["role"] == "counterparty":
        out.append((Check.COUNTERPARTY_RATING, v["rating"], "rating"))
    return out


def _measures(order: Row, instrument: Row, node: Row, opens: bool, gross: float, signed: float,
              worth: float, margin: float, levered: float) -> list[tuple[Check, float, str]]:
    """Return what a node's limits on exposures are held against: (check, measured, metric)."""
    v, out = node["value"], []
    if opens:
        after = v["gross"] + gross
        out.append((Check.GROSS_EXPOSURE, after, "gross"))
        out.append((Check.LEVERAGE, _part(v["leverage"] + levered, node["nav"]), "leverage"))
        if node["role"] in ("issuer", "sector"):
            out.append((Check.CONCENTRATION, _part(after, node["nav"]), "concentration"))
        used = v["credit"] if node["role"] in ("counterparty", "venue") else v["gross"]
        out.append((Check.CREDIT, used + gross, "credit"))
        if node["role"] in (*_TREE, *_OF_INSTRUMENT):
            out.append((Check.MARGIN, v["margin"] + margin, "margin"))
    for check, metric, change in ((Check.NET_EXPOSURE, "net", signed * worth),
                                  (Check.DELTA, "delta", signed * instrument["unit_delta"]),
                                  (Check.VEGA, "vega", signed * instrument["unit_vega"])):
        # all that works up and nothing of what works down, or the other way round: whatever is worse
        held = v[metric] - v[metric + "_up"] + v[metric + "_down"]
        ups, downs = v[metric + "_up"] + max(change, 0), v[metric + "_down"] + max(-change, 0)
        before, after = (max(abs(held + up), abs(held - down)) for up, down in (
            (v[metric + "_up"], v[metric + "_down"]), (ups, downs)))
        if math.isnan(change) or not after <= before:
            out.append((check, math.nan if math.isnan(change) else after, metric))
    return out

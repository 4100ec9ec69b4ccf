"""What reference data and marks say of instruments and nodes, as columns for the models."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from models.reference import FIRM
from models.risk import exposure
from models.risk.node_cells import Held, Tree, all_columns, gross_by_group, group_shares
from models.valued_book import GROUPINGS, ValuedBook
from schemas.instrument_terms import OPTION_CLASSES


class Attributes:
    """What reference data and marks say of every instrument, by index; looked up when reference data change."""

    def __init__(self) -> None:
        self._known: tuple[int, int, int] | None = None
        self._found: dict[str, Any] = {}

    def of(self, book: ValuedBook, instruments: int) -> dict[str, Any]:
        """Return the attributes; the spreads are those of now."""
        state = (book.reference.version, instruments, len(book.market.instruments))
        if self._known != state:
            self._known, self._found = state, _looked_up(book, instruments)
        market = book.market
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = 2.0 * market.half_spread[:instruments] / np.abs(market.price[:instruments])
        return self._found | {"spread": spread}


def _looked_up(book: ValuedBook, instruments: int) -> dict[str, Any]:
    groups = ("issuer", "sector", "country", "name", "expiry")
    out: dict[str, Any] = {g: np.full(instruments, -1, np.int64) for g in groups}
    labels: dict[str, dict[str, int]] = {g: {} for g in out}
    adv, horizon = np.full(instruments, np.nan), np.full(instruments, 20, np.int64)
    cash, underlying = np.zeros(instruments, bool), np.arange(instruments)
    for name, k in book.market.instruments.items():
        record = book.reference.instrument_records.get(name)
        if record is None:
            continue
        for g, value in (("issuer", record.issuer), ("sector", record.sector), ("country", record.country),
                         ("name", record.underlying or name),
                         ("expiry", record.expiry if record.asset_class in OPTION_CLASSES else None)):
            if value:
                out[g][k] = labels[g].setdefault(value, len(labels[g]))
        adv[k] = np.nan if record.adv is None else float(record.adv)
        horizon[k] = exposure.LIQUIDITY_HORIZON_DAYS[record.asset_class]
        cash[k] = record.asset_class == "cash" and record.currency == book.market.base_currency
        if record.underlying in book.market.instruments:
            underlying[k] = book.market.instruments[record.underlying]
    return out | {"labels": labels, "expiries": sorted(labels["expiry"].items()), "adv": adv, "horizon": horizon,
                  "cash": cash, "underlying": underlying}


class Navs:
    """NAV of every node in the firm's base currency; a node with an account without one has none."""

    def __init__(self) -> None:
        self._version = -1
        self._by_currency: dict[str, dict[str, float]] = {}

    def of(self, book: ValuedBook, names: AbstractSet[str] | None = None) -> dict[str, float]:
        """Return NAV by node name at the exchange rates of now; ``names``: of these only."""
        self._look_up(book)
        market = book.market
        asked = self._by_currency.keys() if names is None else names & self._by_currency.keys()
        found = {name: sum(nav * float(market.rate[market.currency(c)]) for c, nav in self._by_currency[name].items())
                 for name in asked}
        return {name: value for name, value in found.items() if value == value}

    def amounts(self, book: ValuedBook, name: str) -> dict[str, float]:
        """Return the NAV of a node by the currency of its accounts; NaN where one has none."""
        self._look_up(book)
        return self._by_currency.get(name, {})

    def _look_up(self, book: ValuedBook) -> None:
        if self._version != book.reference.version:
            self._version = book.reference.version
            self._by_currency = {}
            for account in book.reference.account_records.values():
                nav = float(account.nav) if account.nav is not None else math.nan
                # a dealer's and a PM's accounts are theirs whole, as those of a level are
                above = [FIRM if x == FIRM else f"{x}:{value}" for x in (*book.levels, "dealer", "pm")
                         if (value := FIRM if x == FIRM else account.under(x))]
                for name in (*above, f"account:{account.account}"):
                    sums = self._by_currency.setdefault(name, {})
                    sums[account.base_currency] = sums.get(account.base_currency, 0.0) + nav


def held_with(book: ValuedBook, place: np.ndarray, tree: Tree, nodes: int) -> tuple[list[str], np.ndarray]:
    """Return the counterparties that hold positions, and of every node the gross with each; the last: with none."""
    rollup, prefix = book.rollup, "counterparty:"
    group = np.full(len(rollup.node_names), -1, np.int64)
    labels: list[str] = []
    for k, name in enumerate(rollup.node_names):
        if name.startswith(prefix):
            group[k] = len(labels)
            labels.append(name.removeprefix(prefix))
    out = np.empty((nodes, len(labels) + 1))
    gross_by_group(rollup.count, rollup.rows, rollup.contribution, rollup.ancestors, place,
                   len(book.levels) + GROUPINGS.index("counterparty"), group, tree.levels, tree.edges, out)
    return labels, out


def concentrations_of(net: np.ndarray, of: Held, a: dict[str, Any], held: tuple[list[str], np.ndarray],
                      top: int) -> list[dict[str, Any]]:
    """Return shares of gross and HHI of every node, by name, issuer, sector, country and counterparty."""
    with_whom, gross = held
    nodes = len(gross)
    out: list[dict[str, Any]] = [{"quality": "good", "hhi": None} for _ in range(nodes)]
    found = [("counterparty", with_whom, gross.ravel(), all_columns(gross), np.append(np.arange(len(with_whom)), -1))]
    found += [(g, list(a["labels"][g]), net, of, a[g]) for g in ("name", "issuer", "sector", "country")]
    for g, labels, values, columns, group in found:
        best, shares = np.empty((nodes, top), np.int64), np.empty((nodes, top))
        whole = np.empty((nodes, 2))
        group_shares(values, columns, group, len(labels), best, shares, whole)
        for row, places, shared, (hhi, unknown) in zip(out, best.tolist(), shares.tolist(), whole.tolist(),
                                                       strict=True):
            row[g] = {"hhi": hhi if hhi == hhi else None, "unknown": unknown,
                      "top": {labels[j]: v for j, v in zip(places, shared, strict=True) if j >= 0}}
    for row in out:
        row["hhi"] = row["name"]["hhi"]
    return out

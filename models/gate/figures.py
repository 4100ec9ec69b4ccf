"""What a gate measures of its nodes: exposures, margin, shares of issuers and sectors, NAVs, units of instruments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models import rollup as ru
from models.columns import grown
from models.figures import known_figures
from models.gate import state as gs
from models.gate.day_sums import sum_nodes
from models.gate.followed_terms import FollowedTerms
from models.gate.node_checks import levered_of, margin_of, price_of_unit, reference_of
from models.gate.state import GateState
from models.jit import kernel
from models.node_shares import shares_of
from models.reference import FIRM, settlement_currency
from models.risk.attributes import Navs
from models.risk.margin import tiers_of
from models.trading_day import TradingDay
from models.valued_book import TakenPositions, ValuedBook, other_terms
from schemas.records import Instrument, Position

#: what a node's figures are taken from
_FROM_ROLLUP = ((gs.GROSS, ru.GROSS), (gs.NET, ru.NET), (gs.LONG, ru.LONG), (gs.SHORT, ru.SHORT), (gs.DELTA, ru.DELTA),
                (gs.VEGA, ru.VEGA))
_TARGETS, _SOURCES = (np.array(columns) for columns in zip(*_FROM_ROLLUP, strict=True))
#: what of them leaves positions out, where there are such: it is not known
_LEFT_OUT = np.array([ru.LEFT_OUT[ru.METRICS[source]] for _, source in _FROM_ROLLUP])
_ACCOUNT_NODES = gs.ACCOUNT_NODES
#: NAVs move with exchange rates and accounts: looked up this often
NAVS_NS = 1_000_000_000


#: figures that are summed up of all positions, where some node has a limit on one of them
MEASURED_WHERE_LIMITED = ("margin", "leverage")


@kernel
def measure_nodes(positions: np.ndarray, count: int, accounts: np.ndarray, instruments: np.ndarray,
                  margin: np.ndarray, levered: np.ndarray) -> None:
    """Sum up the initial margin and the delta equivalents, each without its sign, of what nodes hold.

    NaN where a price, a rate or a delta is missing. A position is one instrument of one account, long less short: its
    legs are netted before a rate is applied.
    """
    margin[:] = 0.0
    levered[:] = 0.0
    for p in range(count):
        if positions[p].quantity == 0.0:
            continue
        i = instruments[positions[p].instrument]
        needs = margin_of(i, abs(positions[p].quantity * price_of_unit(i, reference_of(i))))
        equivalent = levered_of(i, abs(positions[p].quantity))
        for k in range(_ACCOUNT_NODES + 5):
            if k < _ACCOUNT_NODES:
                n = accounts[positions[p].account].nodes[k]
            else:
                n = (i.issuer, i.sector, i.asset_class, i.currency, i.pair)[k - _ACCOUNT_NODES]
            if n >= 0:
                margin[n] += needs
                levered[n] += equivalent


class GateFigures(FollowedTerms):
    """The figures behind the limits of nodes, as new as the positions and marks that have come."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(book, state, day)
        #: of every node of the roll-up, its node here
        self._node_of = np.zeros(0, np.int64)
        self._holder_nodes: list[int] = []
        #: nodes and metrics of `MEASURED_WHERE_LIMITED` that are limited: while there are none nobody sums them up
        self._measured: set[tuple[str, str]] = set()
        self._issued: set[int] = set()
        instruments = len(state.instruments)
        self._multiplier = np.full(instruments, math.nan)
        self._currency = np.zeros(instruments, np.int64)
        self._market_index = np.full(instruments, -1, np.int64)
        self._tiers = np.full((2, instruments, gs.MARGIN_TIERS), math.nan)
        self._navs, self._navs_ns = Navs(), -NAVS_NS

    # ---- instruments ----------------------------------------------------------------------------------------------
    def _measure_of(self, k: int, record: Instrument, before: Instrument | None) -> None:
        """Note what the units, the margin and the groups of an instrument are measured by; what works follows them."""
        market, was = self.book.market, self._multiplier.item(k)
        now = self._multiplier[k] = float(record.multiplier * (record.quanto_rate or 1))
        self._currency[k] = market.currency(settlement_currency(record))
        self._market_index[k] = market.instrument(record.instrument)
        self._tiers[:, k] = math.nan
        for t, (up_to, initial, _) in enumerate(tiers_of(record)):
            self._tiers[:, k, t] = up_to, initial
        self._issued.update(n for n in (int(self.state.instruments["issuer"][k]),
                                        int(self.state.instruments["sector"][k])) if n >= 0)
        if before == record:
            return
        scaled = now / was if was == was and was != 0.0 else 1.0
        self.state.unit_var[k] *= scaled  # until it is measured by the new terms
        self._measure_units(np.array([k]))
        works = self.follow_terms(k, record.instrument, scaled)
        if other_terms(before, record) and (works or self.book.rows_in(record.instrument)):
            self.measure()

    def _measure_all_units(self) -> None:
        """Bring what one unit of every instrument is worth, and needs as margin, up to the market."""
        self._measure_units(np.flatnonzero(self._market_index >= 0))
        self.hold_restated()

    def _measure_units(self, known: np.ndarray) -> None:
        market, rows = self.book.market, self.state.instruments
        index, rate = self._market_index[known], market.rate[self._currency[known]]
        unit = known_figures(self._multiplier[known] * rate)
        # one of a price in coin is worth what the coin is
        coin, discount = self.book.contracts.coin_by_instrument(len(market.mid))[index], market.discount[index]
        rows["unit"][known] = np.where(coin, unit * discount, unit)
        greeks = market.unit_greeks[index]
        linear = market.greek_kind[index] == 0
        rows["accrued"][known], rows["discount"][known] = market.accrued[index], np.where(coin, 1.0, discount)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what no number holds is no figure
            value = unit * market.price[index]
            np.divide(unit, market.price[index], out=value, where=rows["inverse"][known] != 0)
            rows["unit_delta"][known] = known_figures(np.where(linear, value, unit * greeks[:, 0]))
            rows["unit_vega"][known] = known_figures(np.where(linear, 0.0, unit * greeks[:, 2]))
        rows["margin_up_to"][known] = self._tiers[0, known] * rate[:, None]
        rows["margin_rate"][known] = self._tiers[1, known]

    # ---- nodes ----------------------------------------------------------------------------------------------------
    def add_position(self, position: Position, shard: int = 0) -> None:
        """Take a position row in: it counts in the figures of its nodes at once."""
        super().add_position(position, shard)
        self.measure()

    def add_positions(self, values: Any, shard: int = 0) -> TakenPositions:
        """Take a slice of the `positions` topic in: it counts in the figures of its nodes at once.

        What its executions leave of working orders is taken back afterwards: nothing is in neither of the two.
        """
        taken = super().add_positions(values, shard)
        self.measure()
        return taken

    def measure(self) -> None:
        """Take the figures of all nodes whose positions have changed."""
        self.book.value_pending()
        rollup, state = self.book.rollup, self.state
        mapped = len(self._node_of)
        if mapped < len(rollup.node_names):
            self._node_of = grown(self._node_of, len(rollup.node_names), -1)
            for k, name in enumerate(rollup.node_names[mapped:], mapped):
                self._node_of[k] = state.node(name)
                if name.startswith("counterparty:"):
                    self._holder_nodes.append(int(self._node_of[k]))
        touched = rollup.take_touched()
        target = self._node_of[touched]
        self._base[target[:, None], _TARGETS] = np.where(
            np.rint(rollup.nodes[touched[:, None], _LEFT_OUT]) > 0.0, np.nan, rollup.nodes[touched[:, None], _SOURCES])
        self._base[self._holder_nodes, gs.CREDIT] = self._base[self._holder_nodes, gs.GROSS]
        if self._measured:
            margin, levered = np.zeros((2, len(state.node_names)))
            measure_nodes(state.positions, int(state.position_count[0]), state.accounts, state.instruments, margin,
                          levered)
            self._base[: len(margin), gs.MARGIN], self._base[: len(margin), gs.LEVERAGE] = margin, levered
        if self.shares:
            self._measure_shares()
        whole = bool(self._measured or self.shares)
        self._sum(np.arange(len(state.node_names)) if whole else np.append(target, self._holder_nodes))

    def _sum(self, which: np.ndarray) -> None:
        sum_nodes(self.state.nodes, self._base, self.reserved, self.others, which.astype(np.int64))

    def _measure_shares(self) -> None:
        names = self.state.node_names
        above, within = ({n: j for j, n in enumerate(dict.fromkeys(ends))} for ends in zip(*self.shares, strict=True))
        share_of = np.full((len(above), len(within)), -1)
        for j, (a, b) in enumerate(self.shares):
            share_of[above[a], within[b]] = j
        ends = [names[n] for n in above], [names[n] for n in within]
        gross, unpriced = (shares_of(self.book.rollup, *ends, share_of, len(self.shares), metric)
                           for metric in (ru.GROSS, ru.UNPRICED))
        self._base[list(self.shares.values()), gs.GROSS] = np.where(np.rint(unpriced) > 0.0, np.nan, gross)

    def _measure_navs(self, now_ns: int) -> None:
        if now_ns - self._navs_ns < NAVS_NS:
            return
        self._navs_ns, nodes, state = now_ns, self.state.nodes, self.state
        nodes["nav"] = math.nan
        for name, nav in self._navs.of(self.book).items():
            nodes["nav"][state.node(name)] = nav
        # an issuer or a sector is a share of the firm, or of the node that limits it
        nodes["nav"][list(self._issued)] = nodes["nav"][state.node(FIRM)]
        for (above, _), share in self.shares.items():
            nodes["nav"][share] = nodes["nav"][above]

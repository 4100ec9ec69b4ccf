"""Reconciliation: internal positions against what others state, with a tolerance for each asset class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from schemas.records import External, Instrument, Position
from schemas.units import parse_ts_ns

#: how far quantities may differ before it is a break, by asset class, and average prices (relative)
QUANTITY_TOLERANCE = {"perpetual": 1e-8, "cash": 0.01}
PRICE_TOLERANCE = {"equity": 1e-6, "bond": 1e-5, "fx": 1e-6}
PRICE_TOLERANCE_DEFAULT = 1e-6
#: sources state money in cents, and round every trade
REALISED_TOLERANCE, REALISED_RELATIVE = 0.01, 1e-6


@dataclass(frozen=True)
class Break:
    """One difference: which source states what about which position."""

    source: str
    account: str
    instrument: str
    field: str
    internal: float | None
    external: float | None
    since_ns: int

    @property
    def key(self) -> str:
        """What stays the same while the break lasts."""
        return f"{self.source}|{self.account}|{self.instrument}|{self.field}"


class StoredTrade(NamedTuple):
    """A record as the trade store has it."""

    account: str
    instrument: str
    trade_id: str
    action: str
    ref_trade_id: str
    quantity: Decimal
    ts_event_ns: int = 0


def _as_it_was(instrument: str, ts_ns: int) -> Decimal:
    return Decimal(1)


def live_quantities(trades: Iterable[StoredTrade], ratio_since: Callable[[str, int], Decimal] = _as_it_was,
                    ) -> dict[tuple[str, str], Decimal]:
    """Return what records come to in the order of the log, by account and instrument.

    By the rule of the position stage: of a chain of corrections the last one counts, by whichever of its ids it was
    named; a busted one counts for nothing and is not corrected any more; what came before changes nothing.

    Parameters
    ----------
    ratio_since : how many units of now one unit of an instrument is, of a time before its splits
    """
    chains: dict[tuple[str, str], list[StoredTrade | None]] = {}
    said: set[StoredTrade] = set()
    for trade in trades:
        own = trade.account, trade.trade_id
        ref = trade.account, trade.ref_trade_id or trade.trade_id
        if trade.action not in ("correct", "bust"):
            if own not in chains:
                chains[own] = [trade]
                said.add(trade)
            continue
        chain = chains.get(ref)
        if chain is None or chain[0] is None or trade in said or (own != ref and own in chains):
            continue
        said.add(trade)
        chain[0] = None if trade.action == "bust" else trade
        if trade.action == "correct":
            chains[own] = chain
    out: dict[tuple[str, str], Decimal] = {}
    live = {id(chain): chain[0] for chain in chains.values()}
    for trade in said:  # what everything of was taken back is stated as nothing held
        out.setdefault((trade.account, trade.instrument), Decimal(0))
    for last in live.values():
        if last is not None:
            key = last.account, last.instrument
            now = Decimal(last.quantity) * ratio_since(last.instrument, last.ts_event_ns)
            out[key] = out.get(key, Decimal(0)) + now
    return out


def reconcile(positions: Mapping[tuple[str, str], Position], statements: Iterable[External],
              instruments: Mapping[str, Instrument], known: Mapping[str, int], now_ns: int) -> list[Break]:
    """Return every break, the largest quantity first.

    Parameters
    ----------
    positions : by (account, instrument); a position that is not there is flat
    statements : the newest one of each source, account and instrument counts
    known : since when each break of the last run is there, by `Break.key`: its age goes on
    """
    newest: dict[tuple[str, str, str], External] = {}
    for s in statements:
        key = (s.source, s.account, s.instrument)
        if key not in newest or parse_ts_ns(newest[key].ts_event) <= parse_ts_ns(s.ts_event):
            newest[key] = s
    out: list[Break] = []
    for (source, account, instrument), s in newest.items():
        p = positions.get((account, instrument))
        held = float(p.quantity) if p else 0.0
        record = instruments.get(instrument)
        asset_class = record.asset_class if record else ""
        stated = float(s.quantity)

        def add(field: str, internal: float | None, external: float | None, where: tuple[str, str, str]) -> None:
            made = Break(*where, field, internal, external, now_ns)
            since = known.get(made.key, now_ns)
            out.append(Break(*where, field, internal, external, since))

        where = (source, account, instrument)
        if abs(held - stated) > QUANTITY_TOLERANCE.get(asset_class, 0.0):
            add("quantity", held, stated, where)
            continue
        # what is unknown here and stated there is a break: it equals no figure
        if s.realised_pnl is not None and p is not None:
            theirs = float(s.realised_pnl)
            tolerance = max(REALISED_TOLERANCE, REALISED_RELATIVE * abs(theirs))
            if p.realised_pnl is None or abs(p.realised_pnl - theirs) > tolerance:
                add("realised_pnl", p.realised_pnl, theirs, where)
        if s.average_price is not None and held and p is not None:
            theirs = float(s.average_price)
            tolerance = PRICE_TOLERANCE.get(asset_class, PRICE_TOLERANCE_DEFAULT)
            if p.average_price is None or abs(p.average_price - theirs) > tolerance * max(abs(theirs), 1e-12):
                add("average_price", p.average_price, theirs, where)
    out.sort(key=lambda b: -abs((b.internal or 0.0) - (b.external or 0.0)))
    return out

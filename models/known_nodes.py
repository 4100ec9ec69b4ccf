"""Which nodes somebody has: as accounts and instruments name them. What orders alone name cannot be known before."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from models.gate.limit_nodes import ACCOUNT_GROUPS, COLLARS
from models.reference import FIRM, LEVELS, Reference, groups_of


class KnownNodes:
    """The names that reference data give to nodes of each kind.

    Traders, counterparties and venues are named by orders: nobody knows beforehand which of them there will be. Where
    every account says who may trade it, nobody else does.

    Parameters
    ----------
    levels : of the tree
    """

    def __init__(self, reference: Reference, levels: Sequence[str] = LEVELS) -> None:
        self._reference, self._levels = reference, tuple(levels)
        self._version = -1
        self._names: dict[str, set[str]] = {}

    def _by_kind(self) -> dict[str, set[str]]:
        if self._version == self._reference.version:
            return self._names
        accounts, instruments = self._reference.account_records.values(), self._reference.instrument_records.values()
        names: dict[str, set[str]] = {
            "account": {a.account for a in accounts}, "instrument": {i.instrument for i in instruments},
            **{kind: {name for a in accounts if (name := a.under(kind)) is not None}
               for kind in (*(level for level in self._levels if level != FIRM), *ACCOUNT_GROUPS)},
            "asset_class": set(COLLARS)}
        for instrument in instruments:
            for kind, group in groups_of(instrument).items():
                names.setdefault(kind, set()).update({group} if group else ())
        for kind in ("issuer", "sector", "currency", "pair"):
            names.setdefault(kind, set())
        traders = [a.traders for a in accounts]
        if traders and None not in traders:
            names["trader"] = {name for found in traders for name in found or ()}
        self._names, self._version = names, self._reference.version
        return names

    def has(self, node: str) -> bool:
        """Return whether somebody has a node, or it cannot be known."""
        kind, _, name = node.partition(":")
        known = self._by_kind().get(kind)
        return known is None or name in known

    def nobody(self, node: str) -> str | None:
        """Return that nobody has a node, with the nearest one that somebody has; None where somebody does."""
        if self.has(node):
            return None
        kind, _, name = node.partition(":")
        names = self._by_kind()
        near = sorted(f"{other}:{name}" for other, found in names.items() if name in found)  # of another kind
        near = near or [f"{kind}:{x}" for x in difflib.get_close_matches(name, sorted(names[kind]), 1, 0.0)]
        return f"nobody has {node!r}" + (f", the nearest is {near[0]!r}" if near else "")

"""What is stated once of every asset class, for whoever measures by it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: the sector of pairs, and of perpetuals, that move with the factor of coins; a perpetual without a sector is one, too
COINS = "crypto"
#: a price is good for so long after its event time, ms
STALE_MS_BY_CLASS: Mapping[str, int] = MappingProxyType({
    "fx": 10_000, "perpetual": 10_000, "equity": 30_000, "future": 30_000, "fx_option": 60_000, "option": 60_000,
    "bond": 300_000, "cash": 86_400_000, "fx_forward": 60_000, "money_market": 300_000})

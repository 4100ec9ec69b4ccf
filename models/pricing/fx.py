"""FX: forwards, cross rates, option delta conventions (spot, forward, premium-adjusted) and premium quote styles.

A pair XXXYYY is quoted as units of YYY (domestic, quote) for one XXX (foreign, base).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from statistics import NormalDist

DELTA_CONVENTIONS = ("spot", "forward", "spot_premium_adjusted", "forward_premium_adjusted")
#: pairs whose premium is paid in the base currency by market custom: their delta is premium-adjusted
PREMIUM_ADJUSTED_PAIRS = frozenset({"USDJPY", "USDCHF", "USDCAD", "EURJPY", "EURGBP", "EURCHF", "EURCAD", "GBPJPY"})
#: market order of currencies: the earlier one is the base of the pair
PAIR_ORDER = ("EUR", "GBP", "AUD", "NZD", "USD", "CAD", "CHF", "JPY")
_N = NormalDist()


def forward_rate(spot: float, df_domestic: float, df_foreign: float) -> float:
    """Return the outright forward by covered interest parity."""
    return spot * df_foreign / df_domestic


def forward_value(forward: float, strike: float, notional_foreign: float, df_domestic: float) -> float:
    """Return the value, in domestic currency today, of being long ``notional_foreign`` at ``strike``."""
    return notional_foreign * (forward - strike) * df_domestic


def option_delta(sign: float, spot: float, strike: float, std_dev: float, df_domestic: float, df_foreign: float,
                 convention: str) -> float:
    """Return the delta of an FX option per unit of foreign notional.

    Parameters
    ----------
    sign : +1 call, -1 put (on the foreign currency)
    std_dev : vol * sqrt(t), not below 0
    convention : one of `DELTA_CONVENTIONS`; premium-adjusted is the delta less the premium in foreign currency
    """
    forward = forward_rate(spot, df_domestic, df_foreign)
    far = math.log(forward / strike)
    # without time or volatility it is certain who exercises; at the strike itself it is the toss of a coin
    d1 = far / std_dev + 0.5 * std_dev if std_dev > 0.0 else math.copysign(math.inf, far) if far else 0.0
    factor = df_foreign if convention.startswith("spot") else 1.0
    if convention.endswith("premium_adjusted"):
        return sign * factor * strike / forward * _N.cdf(sign * (d1 - std_dev))
    return sign * factor * _N.cdf(sign * d1)


def strike_from_delta(sign: float, delta: float, spot: float, std_dev: float, df_domestic: float, df_foreign: float,
                      convention: str) -> float:
    """Return the strike at which an option has a delta in a convention.

    Premium-adjusted calls have two strikes for one delta; the market's is the larger one, out of the money.

    Raises
    ------
    ValueError
        The delta is out of reach in that convention.
    """
    forward = forward_rate(spot, df_domestic, df_foreign)
    factor = df_foreign if convention.startswith("spot") else 1.0
    share = sign * delta / factor
    if not convention.endswith("premium_adjusted"):
        if not 0.0 < share < 1.0:
            raise ValueError(f"delta: expected between 0 and {sign * factor:.6g} for {convention}, was {delta!r}")
        return forward * math.exp(-sign * std_dev * _N.inv_cdf(share) + 0.5 * std_dev * std_dev)

    def adjusted(k: float) -> float:
        return sign * option_delta(sign, spot, k, std_dev, df_domestic, df_foreign, "forward_premium_adjusted")

    high = forward * math.exp(12.0 * std_dev + 1.0)
    low = forward * math.exp(-12.0 * std_dev - 1.0)
    if sign > 0:
        low = _peak(adjusted, low, high)
        if not 0.0 < share <= adjusted(low):
            raise ValueError(f"delta: expected between 0 and {adjusted(low) * factor:.6g} for {convention}, "
                             f"was {delta!r}")
    elif not 0.0 < share < adjusted(high):
        raise ValueError(f"delta: expected between {-adjusted(high) * factor:.6g} and 0 for {convention}, "
                         f"was {delta!r}")
    for _ in range(200):
        middle = math.sqrt(low * high)
        # a call's delta falls with the strike beyond its peak; a put's grows in size
        if (adjusted(middle) > share) == (sign > 0):
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _peak(f: object, low: float, high: float) -> float:
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    a, b = math.log(low), math.log(high)
    for _ in range(120):
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        if f(math.exp(c)) > f(math.exp(d)):  # type: ignore[operator]
            b = d
        else:
            a = c
    return math.exp(0.5 * (a + b))


def atm_delta_neutral_strike(forward: float, std_dev: float, premium_adjusted: bool) -> float:
    """Return the strike of the delta-neutral straddle: the FX market's at-the-money."""
    return forward * math.exp((-0.5 if premium_adjusted else 0.5) * std_dev * std_dev)


def premium_styles(price: float, spot: float, strike: float, notional_foreign: float) -> dict[str, float]:
    """Return one price, in domestic units for one foreign unit, in every style that dealers quote."""
    return {
        "price_domestic_per_foreign": price, "premium_domestic": price * notional_foreign,
        "premium_foreign": price * notional_foreign / spot, "pips_foreign": price / (spot * strike),
        "pct_domestic": price / strike, "pct_foreign": price / spot, "notional_domestic": notional_foreign * strike,
    }


def cross_rate(base: str, quote: str, quotes: Mapping[str, tuple[float, float]], side: str) -> float | None:
    """Return units of ``quote`` for one ``base`` from a set of pairs, or None where no path of pairs exists.

    Parameters
    ----------
    quotes : "AAA/BBB" -> (bid, ask)
    side : "bid" or "ask" multiply that side along the path, an inverse pair counting as 1 / its own same side
        ("bid_reciprocal" is the same with its older name); "dealer_bid" and "dealer_ask" take the side that a dealer
        would deal at (an inverse pair's bid is 1 / its ask); "mid" is from the mean of bid and ask
    """
    def step(bid: float, ask: float, inverse: bool) -> float:
        if side == "mid":
            value = 0.5 * (bid + ask)
        elif side in ("bid", "bid_reciprocal"):
            value = bid
        elif side == "ask":
            value = ask
        elif side in ("dealer_bid", "dealer_ask"):
            value = bid if (side == "dealer_bid") != inverse else ask
        else:
            raise ValueError(f"side: expected bid, ask, mid, dealer_bid or dealer_ask, was {side!r}")
        return 1.0 / value if inverse else value

    path = cross_path(base, quote, quotes)
    if path is None:
        return None
    rate = 1.0
    for a, b in itertools.pairwise(path):
        rate *= step(*quotes[f"{a}/{b}"], False) if f"{a}/{b}" in quotes else step(*quotes[f"{b}/{a}"], True)
    return rate


def cross_path(base: str, quote: str, quotes: Mapping[str, tuple[float, float]]) -> list[str] | None:
    """Return the currencies from ``base`` to ``quote`` over the fewest pairs, or None where no path exists.

    Among equally short paths the first by the alphabet is taken, whatever the order of the quotes.
    """
    beside: dict[str, set[str]] = {}
    for pair in quotes:
        a, _, b = pair.partition("/")
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)
    paths = {base: [base]}
    frontier = [base]
    while frontier and quote not in paths:
        following = []
        for currency in frontier:
            for other in sorted(beside.get(currency, ())):
                if other not in paths:
                    paths[other] = [*paths[currency], other]
                    following.append(other)
        frontier = following
    return paths.get(quote)

"""Calculators of options on one underlying: European and American, barriers, digitals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models.pricing import american, dividends, exotic
from models.pricing import black_scholes as bs
from models.pricing.bachelier import bachelier_greeks, bachelier_implied

FUTURES = ("black", "black76")
FOREIGN = ("garman_kohlhagen", "gk")
LOGNORMAL = ("bs", "bsm", "black_scholes", "black_scholes_merton", "gbs", *FUTURES, *FOREIGN)
CALL_PUT = ("call", "put", "c", "p")
VOL = ("vol", "volatility", "sigma", "implied_vol")
RATE = ("rate", "r", "r_domestic", "domestic_rate")
QUOTE = ("market_price", "price", "premium")
#: rates and volatilities are fractions a year: beyond these they are per cent, or typing errors
MOST_RATE, MOST_VOL, MOST_GROWTH, MOST_YEARS = 2.0, 10.0, 100.0, 200.0


def sign_of(x: Line) -> float:
    """+1 for a call, -1 for a put."""
    return 1.0 if x.choice("type", "right", "option_type", among=CALL_PUT).startswith("c") else -1.0


def years(x: Line) -> float:
    """Time to expiry in years: ``t``, or ``t_days`` over 365 (or ``days_per_year``); both where they agree."""

    def from_days() -> float:
        return x.number("t_days", "days", low=0.0, high=1e5) / x.number("days_per_year", default=365.0, low=250.0,
                                                                       high=366.0)

    names = ("t", "t_years", "expiry_years")
    return x.ways((names, lambda: x.number(*names, low=0.0, high=MOST_YEARS)), (("t_days", "days"), from_days))


def rate_of(x: Line, *names: str, default: Any = ...) -> float:
    """Return a continuous annual rate."""
    return x.number(*names, default=default, low=-MOST_RATE, high=MOST_RATE)


def hold(x: Line, names: tuple[str, ...], t: float, *rates: float) -> None:
    """Refuse rates that grow a unit beyond what the formulas can carry."""
    worst = max(rates, key=abs)
    if abs(worst) * t > MOST_GROWTH:
        raise FieldError(x.name_of(*names), worst, f"rates that times {t!r} years stay below {MOST_GROWTH:g}")


def price_of(x: Line, *names: str) -> float:
    """Return a price above 0."""
    return x.number(*names, above=0.0, high=1e15)


@dataclass(frozen=True)
class Market:
    """What a lognormal option rests on: spot (or futures price), rate, carry, whether carry moves with the rate."""

    spot: float
    rate: float
    carry: float
    follows: float


def market(x: Line, model: str, t: float) -> Market:
    """Return the market of a line for a lognormal model."""
    if model in FUTURES:
        x.conventions["carry"] = "none: the price is a futures price, held when the rate moves"
        out = Market(price_of(x, "forward", "F", "futures_price", "spot", "S"),
                     rate_of(x, *RATE), 0.0, 0.0)
    else:
        spot, rate = price_of(x, "spot", "S", "underlying_price"), rate_of(x, *RATE)
        names = ("carry", "b", "cost_of_carry")
        yields = ("dividend_yield", "q", "r_foreign", "foreign_rate", "dividend")
        if x.has(*names):
            carry = x.ways((names, lambda: rate_of(x, *names)), (yields, lambda: rate - rate_of(x, *yields)))
            x.conventions["carry"] = "b as given; q = r - b is held when r moves"
        else:
            q = rate_of(x, *yields, default=... if model in FOREIGN else 0.0)
            carry = rate - q
            x.conventions["carry"] = f"b = r - q, q = {q!r} continuous"
        out = Market(spot, rate, carry, 1.0)
    hold(x, RATE, t, out.rate, out.carry, out.carry - out.rate)
    return out


def lognormal(x: Line) -> str:
    """Return the model of a line that knows lognormal ones alone."""
    return x.choice("model", among=LOGNORMAL, default="black_scholes_merton")


def one(*values: float) -> list[np.ndarray]:
    """Return columns of one row."""
    return [np.array([float(v)]) for v in values]


def fill(kernel: Callable[..., None], columns: list[np.ndarray], out: np.ndarray) -> None:
    """Have a kernel fill ``out`` from columns."""
    kernel(*columns, out)


def greek_names(price: float, delta: float, gamma: float, vega: float, theta: float, rho: float) -> dict[str, float]:
    """Return Greeks under names that say their units; ``vega``, ``theta`` and ``rho`` are per 1.00 and per year."""
    return {"price": price, "delta": delta, "gamma": gamma, "vega": vega, "vega_per_vol_point": vega / 100.0,
            "vega_per_1pct": vega / 100.0, "theta": theta, "theta_per_year": theta, "theta_per_day": theta / 365.0,
            "rho": rho, "rho_per_1pct": rho / 100.0}


def european_greeks(*values: float) -> dict[str, float]:
    """Return the Greeks of one European option (sign, spot, strike, t, vol, rate, carry, carry follows rate)."""
    g = bs.greeks(*one(*values))
    return greek_names(*(float(getattr(g, n)[0]) for n in ("price", "delta", "gamma", "vega", "theta", "rho")))


@calculator("option", "option_price", "greeks", "equity_option", "black_scholes", "black76", "american_option")
def option(x: Line) -> dict[str, Any]:
    """European or American option: price, five Greeks and more; volatility is implied where a market_price is given.

    Fields: type, spot|S (or forward|F with model black76 or bachelier), strike|K, t (years) or t_days, vol or
    market_price, rate|r, dividend_yield|q or carry|b, exercise european|american (also implied from), model.
    dividends [[years, amount], ...] are cash: European escrowed, American by finite differences on the spot.
    model bachelier is normal: F and K of either sign, vol in price units a year, European. premium_in_underlying:
    price and market_price are in the underlying (coin): value is price x spot, delta comes raw and less the premium.
    Greeks are per unit of the underlying; vega and rho per 1.00 and per 0.01, theta a year and a calendar day
    (year/365); rho holds the dividend yield, dividend_rho is by it; elasticity is delta x spot / price;
    undiscounted_price is price x e^(rt).
    """
    return _option(x, x.has(*QUOTE) and not x.has(*VOL))


@calculator("implied_vol", "implied_volatility")
def implied_vol(x: Line) -> dict[str, Any]:
    """Implied volatility of an option (of any kind that `option` takes) from market_price|price; Greeks at it."""
    return _option(x, True)


def _option(x: Line, implied: bool) -> dict[str, Any]:
    sign, t = sign_of(x), years(x)
    default = "black76" if x.called == "black76" else "black_scholes_merton"
    model = x.choice("model", among=(*LOGNORMAL, "bachelier"), default=default)
    if implied and t <= 0.0:
        raise FieldError(x.name_of("t", "t_years", "expiry_years", "t_days", "days"), t,
                         "above 0: a price at expiry says nothing of volatility")
    if model == "bachelier":
        return _bachelier(x, sign, t, implied)
    m, strike = market(x, model, t), price_of(x, "strike", "K")
    exercise = x.choice("exercise", "style", among=("european", "american"),
                        default="american" if x.called == "american_option" else "european")
    coin = x.flag("premium_in_underlying") if x.has("premium_in_underlying") else False
    kind: type[_European] = {"european": _European, "american": _American}[exercise]
    priced = kind(x, sign, strike, t, m)
    out: dict[str, Any] = {}
    if implied:
        quoted = x.number(*QUOTE, above=0.0)
        vol = out["implied_vol"] = priced.implied(quoted * m.spot if coin else quoted, quoted)
    else:
        vol = x.number(*VOL, low=0.0, high=MOST_VOL)
    out |= priced.greeks(vol)
    value = out["price"]
    x.undefined("elasticity", "the option is worth nothing")
    out["elasticity"] = out["delta"] * m.spot / value if value > 0.0 else None
    out["undiscounted_price"] = value * math.exp(m.rate * t)
    if coin:
        x.conventions["premium"] = "in the underlying: price = value / spot; value and Greeks in the quote currency"
        out |= {"value": value, "price": value / m.spot, "delta_less_premium": out["delta"] - value / m.spot}
    return out


class _European:
    """A European option by the closed formula; cash dividends are escrowed."""

    def __init__(self, x: Line, sign: float, strike: float, t: float, m: Market) -> None:
        self.x, self.sign, self.strike, self.t, self.m = x, sign, strike, t, m
        self.times, self.amounts = np.empty(0), np.empty(0)
        if m.follows and x.has("dividends"):
            self._read_dividends()
        self.worth, self.weighted = dividends.escrowed(self.times, self.amounts, t, m.carry)
        self.spot = m.spot - self.worth
        if self.spot <= 0.0:
            raise FieldError("dividends", self.amounts.tolist(), f"dividends worth less than the spot {m.spot!r}")

    def _read_dividends(self) -> None:
        rows = sorted(self.x.table("dividends", columns=(2,)))
        for when, amount in rows:
            if when <= 0.0 or amount < 0.0:
                raise FieldError("dividends", [when, amount], "a time above 0 years and an amount of at least 0")
        within = [r for r in rows if r[0] <= self.t]
        self.x.conventions["dividends"] = f"cash, {len(within)} of {len(rows)} before expiry: {self.way}"
        if within:
            self.times, self.amounts = np.array([r[0] for r in within]), np.array([r[1] for r in within])

    way = "escrowed, spot less their value in the closed formula"

    def greeks(self, vol: float) -> dict[str, float]:
        """Return price and Greeks at a volatility."""
        out = european_greeks(self.sign, self.spot, self.strike, self.t, vol, self.m.rate, self.m.carry, self.m.follows)
        if self.m.follows:
            out["dividend_rho"] = -out["delta"] * (self.t * self.spot + self.weighted)
        # the value of what is still to be paid grows with time and falls as the rate rises
        theta, rho = out["theta"] - out["delta"] * self.m.carry * self.worth, out["rho"] + out["delta"] * self.weighted
        return out | {"theta": theta, "theta_per_year": theta, "theta_per_day": theta / 365.0, "rho": rho,
                      "rho_per_1pct": rho / 100.0}

    def implied(self, price: float, quoted: float) -> float:
        """Return the volatility at which the option is worth a price."""
        vol, m, t = np.empty(1), self.m, self.t
        fill(bs.implied_volatilities, one(self.sign, self.spot, self.strike, t, m.rate, m.carry, price), vol)
        if math.isnan(vol[0]):
            carried, strike_pv = self.spot * math.exp((m.carry - m.rate) * t), self.strike * math.exp(-m.rate * t)
            low, high = max(self.sign * (carried - strike_pv), 0.0), carried if self.sign > 0 else strike_pv
            self.refuse(quoted, price, low, f" and below {high * quoted / price!r} (no-arbitrage bounds)")
        return float(vol[0])

    def refuse(self, quoted: float, price: float, low: float, more: str) -> None:
        """Refuse a price that no volatility gives."""
        raise FieldError(self.x.name_of(*QUOTE), quoted, f"above {low * quoted / price!r}{more}")


class _American(_European):
    """An American option: by trees, with cash dividends by finite differences on the spot."""

    way = "finite differences on the spot, which falls by each amount at its time; exercise before it is allowed"

    def _prices(self, vol: float, rate: float, carry: float) -> np.ndarray:
        """Return price, delta and gamma (these two with dividends alone)."""
        found = np.full(3, np.nan)
        if len(self.times):
            dividends.american_with_dividends(self.sign, self.m.spot, self.strike, self.t, vol, rate, carry, self.times,
                                              self.amounts, found)
        else:
            columns = one(self.sign, self.m.spot, self.strike, self.t, vol, rate, carry)
            fill(american.american_prices, columns, found[:1])
        return found

    def greeks(self, vol: float) -> dict[str, float]:
        """Return price and Greeks at a volatility."""
        x, m, t = self.x, self.m, self.t
        if len(self.times):
            if vol < 0.005 or vol * math.sqrt(t) > 10.0:
                raise FieldError(x.name_of(*VOL), vol, "at least 0.005, and at most 10 over the root of the years, "
                                                       "for American options with cash dividends")
            price, delta, gamma = self._prices(vol, m.rate, m.carry).tolist()
            dv = min(0.005, 0.5 * vol)
            vega = (self._prices(vol + dv, m.rate, m.carry)[0] - self._prices(vol - dv, m.rate, m.carry)[0]) / (2 * dv)
            held = price > self.sign * (m.spot - self.strike) + 1e-9 * self.strike
            # the equation itself says what time does, where the option is not exercised at once
            alive = m.rate * price - m.carry * m.spot * delta - 0.5 * vol * vol * m.spot * m.spot * gamma
            theta = alive if held else 0.0
            out = greek_names(price, delta, gamma, float(vega), theta, self._slope(vol, 1.0, 1.0))
            x.conventions["method"] = (f"finite differences, {dividends.POINTS} points or more on each side, "
                                       f"{dividends.STEPS} steps or more")
        else:
            found = np.empty((1, 6))
            fill(american.american_greeks, one(self.sign, m.spot, self.strike, t, vol, m.rate, m.carry), found)
            price, delta, gamma, vega, theta, rho = found[0].tolist()
            if vol * math.sqrt(t) < 1e-8:
                gamma = vega = 0.0
            out = greek_names(price, delta, gamma, vega, theta, rho if m.follows else self._slope(vol, 1.0, 0.0))
            x.conventions["method"] = (f"Leisen-Reimer trees of {american.STEPS} and {2 * american.STEPS + 1} steps, "
                                       "extrapolated; Greeks by central bumps")
        return out | ({"dividend_rho": -self._slope(vol, 0.0, 1.0)} if m.follows else {})

    def _slope(self, vol: float, by_rate: float, by_carry: float) -> float:
        """Return the slope of the price as rate, carry or both move by the same."""
        h, m = 1e-4, self.m
        up = self._prices(vol, m.rate + h * by_rate, m.carry + h * by_carry)[0]
        return float(up - self._prices(vol, m.rate - h * by_rate, m.carry - h * by_carry)[0]) / (2.0 * h)

    def implied(self, price: float, quoted: float) -> float:
        """Return the volatility at which the option is worth a price."""
        m, bounds = self.m, " (what it is worth without volatility, exercise now included) and below what it can be"
        if len(self.times):
            return self._implied_by_bisection(price, quoted, bounds)
        vol = np.empty(1)
        fill(american.american_implied, one(self.sign, m.spot, self.strike, self.t, m.rate, m.carry, price), vol)
        if math.isnan(vol[0]):
            self.refuse(quoted, price, float(self._prices(0.0, m.rate, m.carry)[0]), bounds)
        return float(vol[0])

    def _implied_by_bisection(self, price: float, quoted: float, bounds: str) -> float:
        low, high = 0.005, 5.0
        for end, wrong in ((low, 1.0), (high, -1.0)):
            worth = float(self._prices(end, self.m.rate, self.m.carry)[0])
            if wrong * (worth - price) >= 0.0:
                self.refuse(quoted, price, worth, bounds if wrong > 0 else " is beyond a volatility of 5; below it")
        while high - low > 1e-9:
            middle = 0.5 * (low + high)
            if float(self._prices(middle, self.m.rate, self.m.carry)[0]) < price:
                low = middle
            else:
                high = middle
        return high


def _bachelier(x: Line, sign: float, t: float, implied: bool) -> dict[str, Any]:
    """Return an option on a forward under the normal model."""
    names = ("forward", "F", "futures_price")
    if not x.has(*names) and x.has("spot", "S", "underlying_price"):
        field = x.name_of("spot", "S", "underlying_price")
        raise FieldError(field, x.fields[field], "the forward, as F: the normal model is one of a forward")
    forward, strike = x.number(*names, low=-1e15, high=1e15), x.number("strike", "K", low=-1e15, high=1e15)
    rate = rate_of(x, *RATE)
    hold(x, RATE, t, rate)
    x.choice("exercise", "style", among=("european",), default="european")
    x.conventions |= {"carry": "none: the price is a forward, held when the rate moves",
                      "vol": "in price units a year (normal model)"}
    out: dict[str, Any] = {}
    if implied:
        price, vols = x.number(*QUOTE, above=0.0), np.empty(1)
        fill(bachelier_implied, one(sign, forward, strike, t, rate, price), vols)
        if math.isnan(vols[0]):
            low = max(sign * (forward - strike), 0.0) * math.exp(-rate * t)
            raise FieldError(x.name_of(*QUOTE), price, f"above {low!r}, what it is worth without volatility")
        vol = out["implied_vol"] = float(vols[0])
    else:
        vol = x.number(*VOL, low=0.0, high=1e15)
    found = np.empty((1, 6))
    fill(bachelier_greeks, one(sign, forward, strike, t, vol, rate), found)
    named = greek_names(*found[0].tolist())
    out |= {k: v for k, v in named.items() if k not in ("vega_per_vol_point", "vega_per_1pct")}  # no points of per cent
    x.undefined("elasticity", "the option is worth nothing")
    return out | {"elasticity": out["delta"] * forward / out["price"] if out["price"] > 0.0 else None,
                  "undiscounted_price": out["price"] * math.exp(rate * t)}


@calculator("barrier", "barrier_option")
def barrier(x: Line) -> dict[str, Any]:
    """Single-barrier option, continuously monitored: barrier_type, barrier, rebate, rebate_at, touched.

    Out: the rebate is paid at_hit (default) or at_expiry where the barrier was touched; in: at_expiry where it never
    was.
    """
    kind = x.choice("barrier_type", "kind", among=tuple(exotic.BARRIER_KINDS))
    sign, strike, t = sign_of(x), price_of(x, "strike", "K"), years(x)
    m = market(x, lognormal(x), t)
    level, rebate = price_of(x, "barrier", "B", "H"), x.number("rebate", default=0.0, low=0.0)
    out_kind = kind.endswith("out")
    at_hit = x.choice("rebate_at", among=("hit", "expiry") if out_kind else ("expiry",),
                      default="hit" if out_kind else "expiry") == "hit"
    vol, touched = x.number("vol", "volatility", "sigma", low=0.0, high=MOST_VOL), x.flag("touched")
    x.conventions["touched"] = "a spot on or beyond the barrier counts as touched"

    def greeks(name: str, paid: float) -> np.ndarray:
        return _exotic(exotic.BARRIER_KINDS[name], -1, sign, strike, level, paid, t, vol, m, touched)

    found = greeks(kind, rebate if at_hit or not out_kind else 0.0)
    if out_kind and not at_hit and rebate:
        # touched or not, one of the two is paid at expiry; what the opposite knock-in pays is the second
        opposite = kind.replace("out", "in")
        sure, discount = greeks(opposite, 0.0) - greeks(opposite, rebate), rebate * math.exp(-m.rate * t)
        found = found + sure + np.array([discount, 0.0, 0.0, 0.0, m.rate * discount, -t * discount])
    return greek_names(*found.tolist())


@calculator("digital", "digital_option", "binary_option")
def digital(x: Line) -> dict[str, Any]:
    """European digital: payoff cash_or_nothing (cash), asset_or_nothing, gap (payoff_strike)."""
    kind = x.choice("payoff", "kind", among=tuple(exotic.DIGITAL_KINDS))
    sign, strike, t = sign_of(x), price_of(x, "strike", "K"), years(x)
    m = market(x, lognormal(x), t)
    payoff = {"cash_or_nothing": lambda: x.number("cash", low=0.0), "gap": lambda: price_of(x, "payoff_strike"),
              "asset_or_nothing": lambda: 0.0}[kind]()
    vol = x.number("vol", "volatility", "sigma", low=0.0, high=MOST_VOL)
    x.conventions["at_the_strike"] = "without time or volatility, a spot at the strike pays half"
    return greek_names(*_exotic(-1, exotic.DIGITAL_KINDS[kind], sign, strike, 0.0, payoff, t, vol, m, False).tolist())


def _exotic(barrier_kind: int, digital_kind: int, sign: float, strike: float, level: float, payoff: float, t: float,
            vol: float, m: Market, touched: bool) -> np.ndarray:
    out = np.empty((1, 6))
    fill(exotic.exotic_greeks, [np.array([barrier_kind]), np.array([digital_kind]),
                                *one(sign, m.spot, strike, level, payoff, t, vol, m.rate, m.carry),
                                np.array([touched], np.int8)], out)
    return np.array(out[0])

"""Single-barrier and digital options: closed forms of Reiner and Rubinstein (1991), as collected by Haug (1998)."""

from __future__ import annotations

import numpy as np

from models.jit import inline_kernel, kernel
from models.pricing.black_scholes import option_price
from models.pricing.normal import cdf, exp

#: barrier kinds: where the barrier lies, and whether touching it ends or starts the option
DOWN_AND_OUT, DOWN_AND_IN, UP_AND_OUT, UP_AND_IN = 0, 1, 2, 3
BARRIER_KINDS = {"down_and_out": DOWN_AND_OUT, "down_and_in": DOWN_AND_IN, "up_and_out": UP_AND_OUT,
                 "up_and_in": UP_AND_IN}
CASH_OR_NOTHING, ASSET_OR_NOTHING, GAP = 0, 1, 2
#: in one column, digitals follow barriers; VANILLA is neither
VANILLA, FIRST_DIGITAL = -1, 4
DIGITAL_KINDS = {"cash_or_nothing": CASH_OR_NOTHING, "asset_or_nothing": ASSET_OR_NOTHING, "gap": GAP}


@inline_kernel
def _block(phi: float, eta: float, s: float, k: float, x: float, t: float, sd: float, r: float, b: float,
           mirror: float, mu: float) -> float:
    """Return one of the four building blocks; ``mirror`` is (barrier/spot), or 1 for the unreflected ones."""
    power = mirror ** (2.0 * mu)
    return (phi * s * exp((b - r) * t) * power * mirror * mirror * cdf(eta * x)
            - phi * k * exp(-r * t) * power * cdf(eta * x - eta * sd))


@inline_kernel
def barrier_price(kind: int, w: float, s: float, k: float, barrier: float, rebate: float, t: float, v: float,
                  r: float, b: float, touched: bool) -> float:
    """Return the price of a continuously monitored single-barrier option.

    Parameters
    ----------
    kind : one of `BARRIER_KINDS`
    rebate : paid when an out option is knocked out; at expiry where an in option never started
    touched : whether the barrier was touched before; a spot on or beyond it counts as touched
    """
    down = kind == DOWN_AND_OUT or kind == DOWN_AND_IN
    out = kind == DOWN_AND_OUT or kind == UP_AND_OUT
    if touched or (down and s <= barrier) or (not down and s >= barrier):
        return rebate if out else option_price(w, s, k, t, v, r, b)
    sd = v * np.sqrt(t)
    if sd < 1e-10:
        end = s * np.exp(b * t)
        hit = end <= barrier if down else end >= barrier
        if out:
            return rebate if hit else np.exp(-r * t) * max(w * (end - k), 0.0)
        return np.exp(-r * t) * (max(w * (end - k), 0.0) if hit else rebate)
    mu = (b - 0.5 * v * v) / (v * v)
    lam = np.sqrt(mu * mu + 2.0 * r / (v * v))
    ratio = barrier / s
    eta = 1.0 if down else -1.0
    shift = (1.0 + mu) * sd
    x1, x2 = np.log(s / k) / sd + shift, np.log(s / barrier) / sd + shift
    y1, y2 = np.log(barrier * barrier / (s * k)) / sd + shift, np.log(ratio) / sd + shift
    a = _block(w, w, s, k, x1, t, sd, r, b, 1.0, mu)
    bb = _block(w, w, s, k, x2, t, sd, r, b, 1.0, mu)
    c = _block(w, eta, s, k, y1, t, sd, r, b, ratio, mu)
    d = _block(w, eta, s, k, y2, t, sd, r, b, ratio, mu)
    if out:
        z = np.log(ratio) / sd + lam * sd
        paid = rebate * (ratio ** (mu + lam) * cdf(eta * z)
                         + ratio ** (mu - lam) * cdf(eta * z - 2.0 * eta * lam * sd))
    else:
        paid = rebate * exp(-r * t) * (cdf(eta * x2 - eta * sd) - ratio ** (2.0 * mu) * cdf(eta * y2 - eta * sd))
    above = k > barrier
    # which blocks make the knock-in; the knock-out is the plain option less it
    if (w > 0.0) == down:
        knocked_in = c if above == down else a - bb + d
    elif above != down:
        knocked_in = a
    else:
        knocked_in = bb - c + d
    if out:
        return a - knocked_in + paid
    return knocked_in + paid


@kernel
def barrier_prices(kind: np.ndarray, sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, barrier: np.ndarray,
                   rebate: np.ndarray, t_years: np.ndarray, vol: np.ndarray, rate: np.ndarray, carry: np.ndarray,
                   touched: np.ndarray, price: np.ndarray) -> None:
    """Fill barrier option prices; see `barrier_price`."""
    for i in range(price.shape[0]):
        price[i] = barrier_price(kind[i], sign[i], spot[i], strike[i], barrier[i], rebate[i], t_years[i], vol[i],
                                 rate[i], carry[i], touched[i] != 0)


@inline_kernel
def digital_price(kind: int, w: float, s: float, k: float, payoff: float, t: float, v: float, r: float,
                  b: float) -> float:
    """Return the price of a European digital.

    Parameters
    ----------
    payoff : the cash paid, or the strike that a gap option settles against; unused for asset-or-nothing
    """
    sd = max(v * np.sqrt(t), 1e-12)
    d1 = (np.log(s / k) + b * t) / sd + 0.5 * sd
    asset, cash = s * exp((b - r) * t) * cdf(w * d1), exp(-r * t) * cdf(w * (d1 - sd))
    if kind == CASH_OR_NOTHING:
        return payoff * cash
    if kind == ASSET_OR_NOTHING:
        return asset
    return w * (asset - payoff * cash)


@kernel
def digital_prices(kind: np.ndarray, sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, payoff: np.ndarray,
                   t_years: np.ndarray, vol: np.ndarray, rate: np.ndarray, carry: np.ndarray,
                   price: np.ndarray) -> None:
    """Fill digital option prices; see `digital_price`."""
    for i in range(price.shape[0]):
        price[i] = digital_price(kind[i], sign[i], spot[i], strike[i], payoff[i], t_years[i], vol[i], rate[i],
                                 carry[i])


@kernel
def exotic_greeks(barrier_kind: np.ndarray, digital_kind: np.ndarray, sign: np.ndarray, spot: np.ndarray,
                  strike: np.ndarray, level: np.ndarray, payoff: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                  rate: np.ndarray, carry: np.ndarray, touched: np.ndarray, out: np.ndarray) -> None:
    """Fill price, delta, gamma, vega, theta, rho of barriers and digitals by central differences.

    Parameters
    ----------
    barrier_kind, digital_kind : one of the kinds, -1 where the row is of the other sort
    level : the barrier
    payoff : the rebate of a barrier; what a digital pays
    out : float64[n, 6]; next to a barrier the spot bump shrinks so that it never crosses it
    """
    for i in range(out.shape[0]):
        bk, dk, w, k, h, p, hit = (barrier_kind[i], digital_kind[i], sign[i], strike[i], level[i], payoff[i],
                                   touched[i] != 0)
        s, t, v, r, b = spot[i], t_years[i], vol[i], rate[i], carry[i]
        ds = s * 1e-4
        if bk >= 0:
            ds = max(min(ds, 0.45 * abs(s - h)), s * 1e-9)
        dv, dt, dr = 1e-4, min(1.0 / 3650.0, 0.5 * t), 1e-5
        mid = _either(bk, dk, w, s, k, h, p, t, v, r, b, hit)
        up = _either(bk, dk, w, s + ds, k, h, p, t, v, r, b, hit)
        down = _either(bk, dk, w, s - ds, k, h, p, t, v, r, b, hit)
        out[i, 0] = mid
        out[i, 1] = (up - down) / (2.0 * ds)
        out[i, 2] = (up - 2.0 * mid + down) / (ds * ds)
        out[i, 3] = (_either(bk, dk, w, s, k, h, p, t, v + dv, r, b, hit)
                     - _either(bk, dk, w, s, k, h, p, t, v - dv, r, b, hit)) / (2.0 * dv)
        out[i, 4] = (_either(bk, dk, w, s, k, h, p, t - dt, v, r, b, hit) - mid) / dt if dt > 0.0 else 0.0
        out[i, 5] = (_either(bk, dk, w, s, k, h, p, t, v, r + dr, b + dr, hit)
                     - _either(bk, dk, w, s, k, h, p, t, v, r - dr, b - dr, hit)) / (2.0 * dr)


@inline_kernel
def exotic_price(terms: np.ndarray, w: float, s: float, k: float, t: float, v: float, r: float, b: float) -> float:
    """Return the price of a barrier or digital.

    Parameters
    ----------
    terms : float64[4]: kind (`BARRIER_KINDS`, or FIRST_DIGITAL + `DIGITAL_KINDS`), barrier, rebate or payout, touched
    """
    kind = int(terms[0])
    if kind < FIRST_DIGITAL:
        return barrier_price(kind, w, s, k, terms[1], terms[2], t, v, r, b, terms[3] != 0.0)
    return digital_price(kind - FIRST_DIGITAL, w, s, k, terms[2], t, v, r, b)


@inline_kernel
def _either(barrier_kind: int, digital_kind: int, w: float, s: float, k: float, level: float, payoff: float, t: float,
            v: float, r: float, b: float, touched: bool) -> float:
    if barrier_kind >= 0:
        return barrier_price(barrier_kind, w, s, k, level, payoff, t, v, r, b, touched)
    return digital_price(digital_kind, w, s, k, payoff, t, v, r, b)



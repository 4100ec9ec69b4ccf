"""Single-barrier and digital options: closed forms of Reiner and Rubinstein (1991), as collected by Haug (1998)."""

from __future__ import annotations

import numpy as np

from models.jit import inline_kernel, kernel
from models.pricing.black_scholes import option_price
from models.pricing.normal import SQRT_2PI, cdf, exp, upper_tail

#: barrier kinds: where the barrier lies, and whether touching it ends or starts the option
DOWN_AND_OUT, DOWN_AND_IN, UP_AND_OUT, UP_AND_IN = 0, 1, 2, 3
BARRIER_KINDS = {"down_and_out": DOWN_AND_OUT, "down_and_in": DOWN_AND_IN, "up_and_out": UP_AND_OUT,
                 "up_and_in": UP_AND_IN}
CASH_OR_NOTHING, ASSET_OR_NOTHING, GAP = 0, 1, 2
#: in one column, digitals follow barriers; VANILLA is neither
VANILLA, FIRST_DIGITAL = -1, 4
_NODES, _WEIGHTS = (x[8:] for x in np.polynomial.legendre.leggauss(16))
DIGITAL_KINDS = {"cash_or_nothing": CASH_OR_NOTHING, "asset_or_nothing": ASSET_OR_NOTHING, "gap": GAP}


@inline_kernel
def _weighed(log_power: float, z: float) -> float:
    """Return exp(log_power) * N(z), of which one factor may overflow where the product is small."""
    if z > 0.0:
        return exp(log_power) * cdf(z)
    return upper_tail(z, exp(log_power - 0.5 * z * z))


@inline_kernel
def _block(phi: float, eta: float, s: float, k: float, x: float, t: float, sd: float, r: float, b: float,
           mirror: float, mu: float) -> float:
    """Return one of the four building blocks; ``mirror`` is log(barrier/spot), or 0 for the unreflected ones."""
    power = 2.0 * mu * mirror
    return (phi * s * exp((b - r) * t) * _weighed(power + 2.0 * mirror, eta * x)
            - phi * k * exp(-r * t) * _weighed(power, eta * x - eta * sd))


@inline_kernel
def hit_discount(s: float, barrier: float, t: float, v: float, r: float, b: float) -> float:
    """Return the value of 1 paid when the spot first touches the barrier, up to ``t``.

    Where ``lam`` is imaginary (a rate well below zero) the closed form has a complex argument; then the density of
    the first passage is integrated, in u = |log(barrier/spot)| / (vol sqrt(time)), over panels that grow with u.
    """
    far, mu = np.log(barrier / s), (b - 0.5 * v * v) / (v * v)
    sd = v * np.sqrt(t)
    square = mu * mu + 2.0 * r / (v * v)
    if square >= 0.0:
        lam = np.sqrt(square)
        eta = 1.0 if far < 0.0 else -1.0
        z = far / sd + lam * sd
        return (_weighed((mu + lam) * far, eta * z) + _weighed((mu - lam) * far, eta * z - 2.0 * eta * lam * sd))
    left = abs(far) / sd
    end = np.sqrt(left * left + 80.0)
    total = 0.0
    while left < end:
        width = min(0.5 * left, 0.5, end - left)
        for j in range(_NODES.shape[0]):
            for side in (-1.0, 1.0):
                u = left + 0.5 * width * (1.0 + side * _NODES[j])
                total += 0.5 * width * _WEIGHTS[j] * np.exp(mu * far - 0.5 * u * u - 0.5 * square * far * far / (u * u))
        left += width if end - left > width else 2.0 * end
    return total * np.sqrt(2.0 / np.pi)


@inline_kernel
def _without_volatility(down: bool, out: bool, w: float, s: float, k: float, barrier: float, rebate: float, t: float,
                        r: float, b: float) -> float:
    end = s * np.exp(b * t)
    paid = np.exp(-r * t) * max(w * (end - k), 0.0)
    if end <= barrier if down else end >= barrier:
        # the spot drifts to the barrier and is there at a known time
        return rebate * np.exp(-r * np.log(barrier / s) / b) if out else paid
    return paid if out else np.exp(-r * t) * rebate


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
    if sd < 1e-6:
        return _without_volatility(down, out, w, s, k, barrier, rebate, t, r, b)
    mu = (b - 0.5 * v * v) / (v * v)
    mirror = np.log(barrier / s)
    eta = 1.0 if down else -1.0
    shift = (1.0 + mu) * sd
    x1, x2 = np.log(s / k) / sd + shift, -mirror / sd + shift
    y1, y2 = np.log(barrier * barrier / (s * k)) / sd + shift, mirror / sd + shift
    a = _block(w, w, s, k, x1, t, sd, r, b, 0.0, mu)
    bb = _block(w, w, s, k, x2, t, sd, r, b, 0.0, mu)
    c = _block(w, eta, s, k, y1, t, sd, r, b, mirror, mu)
    d = _block(w, eta, s, k, y2, t, sd, r, b, mirror, mu)
    paid = 0.0
    if rebate != 0.0:
        paid = rebate * (hit_discount(s, barrier, t, v, r, b) if out else exp(-r * t) * (
            cdf(eta * x2 - eta * sd) - _weighed(2.0 * mu * mirror, eta * y2 - eta * sd)))
    above = k > barrier
    # which blocks make the knock-in; the knock-out is the plain option less it
    if (w > 0.0) == down:
        knocked_in = c if above == down else a - bb + d
    elif above != down:
        knocked_in = a
    else:
        knocked_in = bb - c + d
    return max(a - knocked_in if out else knocked_in, 0.0) + paid


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
    """Fill price, delta, gamma, vega, theta, rho: of barriers by central differences, of digitals in closed form.

    Parameters
    ----------
    barrier_kind, digital_kind : one of the kinds, -1 where the row is of the other sort
    level : the barrier
    payoff : the rebate of a barrier; what a digital pays
    out : float64[n, 6]; next to a barrier the spot bump shrinks so that it never crosses it; once touched it is touched
    """
    for i in range(out.shape[0]):
        bk, w, k, h, p, hit = barrier_kind[i], sign[i], strike[i], level[i], payoff[i], touched[i] != 0
        s, t, v, r, b = spot[i], t_years[i], vol[i], rate[i], carry[i]
        if bk < 0:
            _digital_greeks(digital_kind[i], w, s, k, p, t, v, r, b, out[i])
            continue
        down_kind = bk == DOWN_AND_OUT or bk == DOWN_AND_IN
        hit = hit or (s <= h if down_kind else s >= h)
        ds = s * min(1e-4, max(0.01 * v * np.sqrt(t), 1e-7))
        if not hit:
            ds = min(ds, 0.45 * abs(s - h))
        dv, dt, dr = min(1e-4, 0.5 * v), min(1.0 / 3650.0, 0.5 * t), 1e-5
        mid = barrier_price(bk, w, s, k, h, p, t, v, r, b, hit)
        up = barrier_price(bk, w, s + ds, k, h, p, t, v, r, b, hit)
        down = barrier_price(bk, w, s - ds, k, h, p, t, v, r, b, hit)
        out[i, 0] = mid
        out[i, 1] = (up - down) / (2.0 * ds)
        out[i, 2] = (up - 2.0 * mid + down) / (ds * ds)
        out[i, 3] = (barrier_price(bk, w, s, k, h, p, t, v + dv, r, b, hit)
                     - barrier_price(bk, w, s, k, h, p, t, v - dv, r, b, hit)) / (2.0 * dv) if dv > 0.0 else 0.0
        out[i, 4] = (barrier_price(bk, w, s, k, h, p, t - dt, v, r, b, hit)
                     - barrier_price(bk, w, s, k, h, p, t + dt, v, r, b, hit)) / (2.0 * dt) if dt > 0.0 else 0.0
        out[i, 5] = (barrier_price(bk, w, s, k, h, p, t, v, r + dr, b + dr, hit)
                     - barrier_price(bk, w, s, k, h, p, t, v, r - dr, b - dr, hit)) / (2.0 * dr)


@inline_kernel
def _digital_greeks(kind: int, w: float, s: float, k: float, payoff: float, t: float, v: float, r: float, b: float,
                    out: np.ndarray) -> None:
    """Fill price, delta, gamma, vega, theta, rho in closed form; without volatility or time the density is left out."""
    root = np.sqrt(t)
    sd = max(v * root, 1e-12)
    alive = v * root > 1e-12
    d1 = (np.log(s / k) + b * t) / sd + 0.5 * sd
    d2 = d1 - sd
    pays_asset = 0.0 if kind == CASH_OR_NOTHING else w if kind == GAP else 1.0
    pays_cash = payoff if kind == CASH_OR_NOTHING else -w * payoff if kind == GAP else 0.0
    carried, df = s * exp((b - r) * t), exp(-r * t)
    asset, cash = carried * cdf(w * d1), df * cdf(w * d2)
    # by the spot's logarithm: of each part its level, and what the density at the strike adds
    n1 = w * carried * exp(-0.5 * min(d1 * d1, 1400.0)) / SQRT_2PI if alive else 0.0
    n2 = w * df * exp(-0.5 * min(d2 * d2, 1400.0)) / SQRT_2PI if alive else 0.0
    slope = pays_asset * (asset + n1 / sd) + pays_cash * n2 / sd
    bend = pays_asset * (asset + 2.0 * n1 / sd - n1 * d1 / (sd * sd)) - pays_cash * n2 * d2 / (sd * sd)
    out[0] = pays_asset * asset + pays_cash * cash
    out[1], out[2] = slope / s, (bend - slope) / (s * s)
    # moves of d1 and d2 with volatility, time and carry
    out[3] = -(pays_asset * n1 * d2 + pays_cash * n2 * d1) / v if alive else 0.0
    by_time = 0.0
    if alive:
        half = 0.5 / t
        e1, e2 = (b / sd + 0.5 * v / root) - half * d1, (b / sd - 0.5 * v / root) - half * d2
        by_time = pays_asset * n1 * e1 + pays_cash * n2 * e2
    out[4] = r * pays_cash * cash - (b - r) * pays_asset * asset - by_time
    out[5] = -t * pays_cash * cash + ((pays_asset * n1 + pays_cash * n2) * t / sd if alive else 0.0)


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

"""Options on a spot that pays discrete cash dividends: escrowed (European), by finite differences (American).

Escrowed: the spot less the value of the dividends before expiry follows the lognormal law; the closed formula holds.
Finite differences: the spot itself does, and falls by each dividend when it is paid; before, the holder may exercise.
"""

from __future__ import annotations

import numpy as np

from models.jit import allocating_kernel, inline_kernel

#: least points of the grid in the logarithm of the spot on each side, least points a deviation, steps in time, and how
#: far the grid reaches in deviations
POINTS, A_DEVIATION, STEPS, REACH = 400, 70, 500, 5.5


def escrowed(times: np.ndarray, amounts: np.ndarray, t: float, carry: float) -> tuple[float, float]:
    """Return what the dividends paid up to ``t`` are worth now, and the same weighted with their times.

    Parameters
    ----------
    carry : cost of carry b: a dividend is taken back from the forward to now at the rate at which the spot grows
    """
    before = (times > 0.0) & (times <= t)
    worth = amounts[before] * np.exp(-carry * times[before])
    return float(worth.sum()), float((worth * times[before]).sum())


@inline_kernel
def _interpolate(value: np.ndarray, at: float) -> float:
    """Return the cubic through the four points around a place of the grid, counted in points."""
    n = value.shape[0]
    j = min(max(int(np.floor(at)), 1), n - 3)
    u = at - j
    return (value[j - 1] * (-u * (u - 1.0) * (u - 2.0) / 6.0) + value[j] * ((u + 1.0) * (u - 1.0) * (u - 2.0) / 2.0)
            + value[j + 1] * (-(u + 1.0) * u * (u - 2.0) / 2.0) + value[j + 2] * ((u + 1.0) * u * (u - 1.0) / 6.0))


@inline_kernel
def _step(value: np.ndarray, push: np.ndarray, dt: float, implicit: float, low: float, mid: float, up: float,
          bottom: float, top: float, r: float, above: np.ndarray, right: np.ndarray) -> None:
    """Take one step back in time; at both ends the value is a straight line in the spot (there V_xx = V_x).

    ``push`` is what exercise adds a year: the step takes the last one's along, so that it stays of second order.
    """
    n = value.shape[0]
    a, e = implicit * dt, (1.0 - implicit) * dt
    previous = value[0]
    # rows are eliminated on the way up and solved on the way down
    first = 1.0 + a * (bottom + r)
    right[0] = (value[0] + dt * push[0] + e * (bottom * (value[1] - value[0]) - r * value[0])) / first
    above[0] = -a * bottom / first
    for i in range(1, n - 1):
        held = value[i]
        source = held + dt * push[i] + e * (low * previous + mid * held + up * value[i + 1])
        pivot = 1.0 - a * mid + a * low * above[i - 1]
        above[i] = -a * up / pivot
        right[i] = (source + a * low * right[i - 1]) / pivot
        previous = held
    last = value[n - 1]
    source = last + dt * push[n - 1] + e * (top * (last - previous) - r * last)
    pivot = 1.0 - a * (top - r) - a * top * above[n - 2]
    value[n - 1] = (source - a * top * right[n - 2]) / pivot
    for i in range(n - 2, -1, -1):
        value[i] = right[i] - above[i] * value[i + 1]


@allocating_kernel
def american_with_dividends(w: float, s: float, k: float, t: float, v: float, r: float, b: float, times: np.ndarray,
                            amounts: np.ndarray, out: np.ndarray) -> None:
    """Fill price, delta and gamma of an American option; the spot falls by each amount at its time.

    Parameters
    ----------
    times, amounts : ascending times in years, above 0; those after ``t`` are left out
    out : float64[3]
    """
    paid = 0.0
    for i in range(times.shape[0]):
        if times[i] <= t:
            paid += amounts[i]
    sd = v * np.sqrt(t)
    # where volatility is large the spot that matters lies half its square further out than the likely one
    reach = REACH * sd + 0.5 * sd * sd + abs(b) * t - np.log(max(1.0 - paid / s, 0.01)) + 0.05
    centre = max(POINTS, int(reach / sd * A_DEVIATION))
    centre = min(centre, 4 * POINTS)
    n = 2 * centre + 1
    dx = reach / centre
    spots, value, push, above, right = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        spots[i] = s * np.exp((i - centre) * dx)
        value[i] = max(w * (spots[i] - k), 0.0)
        low_end, high_end = spots[i] * np.exp(-0.5 * dx), spots[i] * np.exp(0.5 * dx)
        if low_end < k < high_end:  # a point beside the kink stands for its cell
            value[i] = ((high_end - k - k * np.log(high_end / k)) if w > 0.0
                        else (k * np.log(k / low_end) - k + low_end)) / dx
    # weights at which money and the spot themselves grow as they do, whatever the distance of the points
    spread = v * v / (dx * dx)
    up = (b + spread * (1.0 - np.exp(-dx))) / (np.exp(dx) - np.exp(-dx))
    low, mid = spread - up, -spread - r
    bottom, top = b / (np.exp(dx) - 1.0), b / (1.0 - np.exp(-dx))
    ends = times.shape[0]
    done = 0.0
    while True:
        while ends > 0 and times[ends - 1] > t:
            ends -= 1
        paying = ends > 0
        until = t - times[ends - 1] if paying else t
        count = max(int(np.ceil(STEPS * (until - done) / t)), 8) if until > done else 0
        dt = (until - done) / max(count, 1)
        push[:] = 0.0
        for j in range(count):
            # the first steps after a kink are wholly implicit: the others would carry it on as an oscillation
            _step(value, push, dt, 1.0 if j < 4 else 0.5, low, mid, up, bottom, top, r, above, right)
            for i in range(n):
                exercised, held = max(w * (spots[i] - k), 0.0), value[i] - dt * push[i]
                push[i] = max(push[i] + (exercised - value[i]) / dt, 0.0)
                value[i] = max(held, exercised)
        done = until
        if not paying:
            break
        amount = amounts[ends - 1]
        for i in range(n):
            right[i] = value[i]
        for i in range(n):
            left = spots[i] - amount
            held = right[0] if left <= spots[0] else _interpolate(right, centre + np.log(left / s) / dx)
            value[i] = max(held, w * (spots[i] - k), 0.0)
        ends -= 1
    below, beyond = s - spots[centre - 1], spots[centre + 1] - s
    fall, rise = value[centre] - value[centre - 1], value[centre + 1] - value[centre]
    out[0] = value[centre]
    out[1] = (rise / beyond * below + fall / below * beyond) / (below + beyond)
    out[2] = 2.0 * (rise / beyond - fall / below) / (below + beyond)

"""What one position is worth, and what a day made of it: one formula for nodes, what-ifs and the ladder."""

from __future__ import annotations

import numpy as np

from models.figures import is_figure
from models.jit import hot_kernel, inline_kernel


@inline_kernel
def worth(quantity: float, unit_value: float, average: float, price: float, accrued: float, discount: float,
          inverse: bool) -> tuple[float, float]:
    """Return the value and the unrealised P&L of a position in its settlement currency; NaN: unknown, or no figure.

    Parameters
    ----------
    unit_value : multiplier times quanto rate
    accrued : interest in units of price: what is held is worth it, its P&L is interest
    discount : what a unit of P&L is worth today; 1 for all but forwards
    """
    if quantity == 0.0:
        return 0.0, 0.0
    if inverse:
        value, gained = quantity * unit_value / price, quantity * unit_value * (1.0 / average - 1.0 / price)
    else:
        value = quantity * unit_value * (price + accrued) * discount
        gained = quantity * unit_value * (price - average) * discount
    return value if is_figure(value) else np.nan, gained if is_figure(gained) else np.nan


@hot_kernel
def day_parts(opening: float, opening_price: float, opening_realised: float, accrued_before: float, uv: float,
              inverse: bool, outright: bool, earned: float, x: float, fees: float, close: float, df: float,
              x_close: float, carry: float) -> tuple[float, float, float, bool]:
    """Return the price and FX parts of the day's P&L (total now less total at the prior close), all, whether known.

    ``earned``, realised and unrealised, is in base currency already. What is no figure is none of it.
    """
    total = earned - fees
    before = 0.0 if opening_realised == 0.0 else opening_realised * df * x
    if before != before:
        return 0.0, 0.0, 0.0, False
    price, fx, known = total - before, 0.0, True
    if opening != 0.0:
        if inverse:
            carried = opening * uv * (1.0 / opening_price - 1.0 / close)
            held = opening * uv / close
        else:
            carried = opening * uv * (close - opening_price)
            held = opening * uv * (close + accrued_before)
        price = total - before - carried * df * x
        known = price == price
        if not known:
            price, carry = 0.0, 0.0
        # what was held outright overnight also moves with the exchange rate; a margined product does not
        elif outright:
            known = x_close == x_close
            fx = held * (x - x_close) if known else 0.0
    if not (is_figure(price) and is_figure(fx) and is_figure(carry)):
        return 0.0, 0.0, 0.0, False
    return price, fx, price + carry + fx, known

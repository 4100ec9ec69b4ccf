"""What one unit of an order holds of every figure, by its instrument's terms, prices and sensitivities of now."""

from __future__ import annotations

from models.figures import FIGURE_MAX
from models.gate.reserve_kernels import value_of_unit
from models.gate.state import GateState


def figures_of_unit(state: GateState, instrument: int, side: float) -> tuple[float, float, float, float, float]:
    """Return (gross, net, delta, vega, VaR) of one unit bought (``side`` 1) or sold (-1), in base currency.

    What is not known of Greeks and VaR is 0: where it is limited the order is refused.
    """
    worth, delta, vega = (value_of_unit(state.instruments, instrument), state.unit_delta.item(instrument),
                          state.unit_vega.item(instrument))
    var = state.unit_var.item(instrument)
    return (abs(worth), side * worth, side * delta if abs(delta) <= FIGURE_MAX else 0.0,
            side * vega if abs(vega) <= FIGURE_MAX else 0.0, var if abs(var) <= FIGURE_MAX else 0.0)

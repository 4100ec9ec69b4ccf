"""What one unit of an instrument has as VaR alone is the VaR of a node that holds nothing else, bought or sold."""

from __future__ import annotations

from typing import Any

import pytest

from models.risk.live import RiskModels
from models.risk.quantile import quantile_loss
from models.risk.unit_var import unit_var
from models.valued_book import INSTRUMENT_GROUPINGS
from tests.property.test_risk_models import NAMES, NOW, history, make_book, play

LEVEL, COLUMN = 0.99, 2


def measured(*trades: Any) -> tuple[Any, RiskModels]:
    book, models = play(list(trades), False)
    assert models.scenarios is not None
    return book, models


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_var_of_a_node_that_holds_one_unit_and_nothing_else(name: str) -> None:
    (_, models), sides = measured(), []
    found = unit_var(models.scenarios, LEVEL)  # type: ignore[arg-type]
    assert found.keys() == set(NAMES)
    for quantity in (1.0, -1.0):
        book, alone = measured((0, name, quantity))
        assert alone.scenarios is not None
        sides.append(float(alone.scenarios.tail_of(book.rollup.node_index["account:A0"])[0][COLUMN]))
    assert found[name] == pytest.approx(max(sides), rel=1e-9) and found[name] > 0.0
    assert models.scenarios is not None
    unit = models.scenarios.unit[models.book.market.instruments[name]]
    assert found[name] == pytest.approx(max(quantile_loss(unit, LEVEL), quantile_loss(-unit, LEVEL)), rel=1e-9), "by the naive definition"


def test_without_a_history_it_is_not_known() -> None:
    book = make_book()
    models = RiskModels(book, book.contracts, history(without="SAP"), INSTRUMENT_GROUPINGS)
    book.revalue(NOW)
    models.run(NOW)
    assert models.scenarios is not None
    assert set(NAMES) - unit_var(models.scenarios, LEVEL).keys() == {"SAP", "OPT", "PUT"}

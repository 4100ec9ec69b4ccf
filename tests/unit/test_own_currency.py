"""Whatever the gateway answers about a node is in the currency that it names: the node's own, at the rate of now."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from app.gateway import whatif
from app.gateway.server import Gateway
from models import rollup as ru
from models.risk.factor_history import History
from schemas.codec import encode
from schemas.nodes import Exposure, Pnl, Quality, Risk
from tests.unit.test_one_value import hold, made
from tests.unit.test_order_effects import MARKET, NOW, QUANTITY

#: dollars for a euro
RATE = MARKET["EURUSD"][1]
SHOCKS = [{"name": "down", "shocks": [{"match": {"asset_class": "equity"}, "move": -0.2}]}, {"name": "euro", "shocks": [{"kind": "currency", "match": {"currency": "EUR"}, "move": 0.1}]}]
LOST = 25.0


@pytest.fixture(autouse=True)
def past(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = np.random.default_rng(7).normal(0.0, 0.01, (250, len(MARKET)))
    monkeypatch.setattr(whatif, "load_history", lambda *_: History(tuple(MARKET), moves))


def asked_of(gateway: Gateway, method: str, path: str, **body: Any) -> Any:
    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app()), base_url="http://gateway") as client:
            return await client.request(method, path, json=body or None)

    reply = asyncio.run(answer())
    return reply.json() | {"status": reply.status_code}


def held(currency: str) -> Gateway:
    """Return a gateway with a position of each kind under a desk that is stated in a currency."""
    out = made(currency)
    out.settings = out.settings.model_copy(update={"history": "past.csv"})
    for name in ("STOCK", "STOCK.EU", "FUTURE", "CALL"):
        hold(out, name, QUANTITY)
    return out


def what_if(gateway: Gateway, loss: float) -> dict[str, Any]:
    found: dict[str, Any] = asked_of(gateway, "POST", "/api/whatif", node="desk:D", trades=[{"instrument": "STOCK", "quantity": 3}, {"instrument": "CALL.EU", "quantity": -2}],
                                     scenarios=SHOCKS, reverse={"shock": {"match": {"asset_class": "equity"}, "move": 0}, "loss": loss})
    return found


def money(found: dict[str, Any]) -> dict[str, float]:
    return {f"{metric}.{part}": value for metric, of in found["trades"].items() for part, value in of.items()} | found["scenarios"]


def test_a_question_is_answered_in_the_currency_of_the_node_figure_by_figure() -> None:
    dollars, euros = (what_if(held(currency), loss) for currency, loss in (("USD", LOST * RATE), ("EUR", LOST)))
    assert (dollars["base_currency"], euros["base_currency"]) == ("USD", "EUR")
    here, there = money(dollars), money(euros)
    assert here.keys() == there.keys() and {"net.now", "vega.change", "var_hist_99.now", "down", "euro"} <= here.keys()
    for figure, value in here.items():
        assert there[figure] == pytest.approx(value / RATE, rel=1e-9), figure
    assert any(here.values())
    # the same move loses the same, said in either currency
    assert euros["reverse"]["down"] == pytest.approx(dollars["reverse"]["down"], rel=1e-9)
    assert euros["reverse"]["down"] is not None and euros["reverse"]["base_currency"] == "EUR" and euros["reverse"]["loss"] == LOST


def test_what_a_question_calls_now_is_the_figure_of_the_node() -> None:
    gateway = held("EUR")
    book = gateway.state.book
    figures = book.figures(book.rollup.node_index["desk:D"])
    net = sum(c[ru.NET] for c in book.rollup.contribution[: book.rollup.count]) / RATE
    assert what_if(gateway, LOST)["trades"]["net"]["now"] == pytest.approx(figures[ru.NET], rel=1e-12) == pytest.approx(net, rel=1e-12)


def test_a_node_without_a_rate_of_its_currency_has_no_figure_and_cannot_lose_anything() -> None:
    gateway = held("SEK")
    with_reverse = what_if(gateway, LOST)
    assert with_reverse["status"] == 400 and "SEK" in with_reverse["error"]
    found = asked_of(gateway, "POST", "/api/whatif", node="desk:D", trades=[{"instrument": "STOCK", "quantity": 3}], scenarios=SHOCKS)
    assert found["base_currency"] == "SEK" and set(money(found).values()) == {None}


def test_every_answer_about_a_node_names_the_currency_of_its_money() -> None:
    gateway = held("EUR")
    record = Risk(node="desk:D", snapshot_id=1, ts=NOW, as_of=[], quality=Quality(), base_currency="EUR", pnl=Pnl(*[1.0] * 7), exposure=Exposure(1.0, 1.0, 1.0, 0.0, 1),
                  top={"net": [{"id": "STOCK", "value": 1.0}]}, models={})
    gateway.state.add_models("desk:D", encode(record))
    gateway.state.take_risk("desk:D", encode(record))
    answers = {"risk": asked_of(gateway, "GET", "/api/risk/desk:D"), "contributors": asked_of(gateway, "GET", "/api/risk/desk:D/contributors?metric=net"),
               "whatif": asked_of(gateway, "POST", "/api/whatif", node="desk:D"), "limits": asked_of(gateway, "GET", "/api/limits?scope=desk:D")}
    assert {name: (answer["status"], answer["base_currency"]) for name, answer in answers.items()} == {
        "risk": (200, "EUR"), "contributors": (200, "EUR"), "whatif": (200, "EUR"), "limits": (200, "USD")}

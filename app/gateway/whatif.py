"""What if: trades or shocks on the live snapshot, answered by the kernels of production; nothing is written."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.gateway.answers import sight_of
from app.gateway.state import GatewayState
from app.history import load_history
from app.request_bodies import body_of
from app.settings import Settings
from models import rollup as ru
from models.position_worth import worth
from models.risk.factor_history import History
from models.risk.scenarios import LEVELS, ScenarioBook, what_if
from models.risk.stress import Scenario, Shock, reverse_stress, stress
from models.valued_book import INSTRUMENT_GROUPINGS
from schemas.codec import JsonDecoder, encode


class WhatIfTrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trade that might be done: signed quantity at the present price."""

    instrument: str
    quantity: float


class Reverse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which move of one factor loses so much."""

    shock: Shock
    loss: float


class WhatIfRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked: effects of trades on a node, scenarios on it, a reverse stress."""

    #: the user's own where none is named
    node: str | None = None
    trades: list[WhatIfTrade] = msgspec.field(default_factory=list)
    scenarios: list[Scenario] = msgspec.field(default_factory=list)
    reverse: Reverse | None = None


_request = JsonDecoder(WhatIfRequest)


class WhatIf:
    """`POST /api/whatif` over the gateway's book."""

    def __init__(self, settings: Settings, state: GatewayState) -> None:
        self._settings, self._state = settings, state
        self._history: History | None = None
        self._lock = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer a question; money is in the node's own currency, as in its record: `base_currency` says which."""
        try:
            asked = _request.decode(await body_of(request))
        except msgspec.DecodeError as error:
            raise HTTPException(400, f"body: {error}") from error
        book = self._state.book
        sight = sight_of(request, self._state)
        name = sight.need(sight.home if asked.node is None else asked.node)
        node = book.rollup.node_index.get(name)
        if node is None:
            raise HTTPException(404, f"node {name!r} is not known")
        async with self._lock:
            if self._history is None and self._settings.history:
                self._history = await asyncio.get_running_loop().run_in_executor(
                    None, load_history, self._settings.history, self._settings.scenario_volatility == "current",
                    self._settings.var_horizon_days)
            book.revalue()
            out: dict[str, Any] = {"node": name, "snapshot_id": book.snapshot_id,
                                   "base_currency": book.currency_of(node)}
            try:
                if asked.trades:
                    out["trades"] = self._trades(node, asked.trades)
                if asked.scenarios:
                    shocked = stress(book, book.contracts, asked.scenarios, self._history)
                    moved = (shocked.vectors[node] * book.scale_of(node)).tolist()
                    out["scenarios"] = {s.name: _known(x) for s, x in zip(asked.scenarios, moved, strict=True)}
                    out["missing"] = int(shocked.missing[node])
                if asked.reverse is not None:
                    out["reverse"] = reverse_stress(book, book.contracts, name, asked.reverse.shock,
                                                    asked.reverse.loss)
            except ValueError as error:
                raise HTTPException(400, str(error)) from error
        return Response(encode(out), media_type="application/json")

    def _trades(self, node: int, trades: list[WhatIfTrade]) -> dict[str, Any]:
        book, market = self._state.book, self._state.book.market
        sums, scale = book.figures(node), book.scale_of(node)
        change = dict.fromkeys(("net", *ru.GREEKS), 0.0)
        vector: np.ndarray | None = None
        scenarios = None
        if self._history is not None:
            scenarios = ScenarioBook(book, book.contracts, self._history, INSTRUMENT_GROUPINGS)
            scenarios.fill_units()
            scenarios.rebuild(np.array([node]))
            vector = np.zeros(scenarios.days)
        for t in trades:
            k = market.instruments.get(t.instrument)
            record = book.reference.instrument_records.get(t.instrument)
            if k is None or record is None:
                raise ValueError(f"instrument: expected a known one, was {t.instrument!r}")
            rate = float(market.rate[market.currency(record.settlement or record.currency)])
            price, unit = float(market.price[k]), float(record.multiplier * (record.quanto_rate or 1))
            # the function that values a position: what it adds is what the position then has
            value, _ = worth(t.quantity, unit, price, price, float(market.accrued[k]), float(market.discount[k]),
                             record.inverse)
            if value * rate != value * rate:
                raise ValueError(f"instrument: {t.instrument!r} has no price, discount or exchange rate")
            change["net"] += value * rate
            if market.greek_kind[k] == 0:
                change["delta"] += value * rate
            else:
                for g, name in enumerate(ru.GREEKS):
                    change[name] += t.quantity * unit * rate * float(market.unit_greeks[k, g])
            if scenarios is not None and vector is not None:
                vector += t.quantity * scenarios.unit[k]
        out: dict[str, Any] = {m: {"now": _known(float(sums[getattr(ru, m.upper())])), "change": _known(c * scale)}
                               for m, c in change.items()}
        if scenarios is not None and vector is not None:
            for level, rank in zip(LEVELS, scenarios.ranks.tolist(), strict=True):
                now, then = what_if(scenarios.vectors[node], vector, rank)
                out[f"var_hist_{level * 100:g}"] = {"now": _known(now * scale), "change": _known((then - now) * scale)}
        return out


def _known(value: float) -> float | None:
    return value if value == value else None

"""Plain answers: positions, a node's risk, its contributors."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.gateway.answers import json_answer, known_node, scope_of, sight_of
from app.gateway.state import GatewayState
from app.gateway.stream import FACTS_FIRST

#: positions valued before others get a turn
AT_ONCE = 200


class Reads:
    """Routes over what the gateway knows."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/me", self.get_me), Route("/api/positions", self.get_positions),
                Route("/api/risk/{node:path}/contributors", self.get_contributors),
                Route("/api/risk/{node:path}", self.get_risk),
                Route("/api/facts", self.get_facts)]

    async def get_me(self, request: Request) -> Response:
        """`GET /api/me`: who asks, and what may be read: the first node is where a page begins."""
        user, sight = request.scope.get("deskrisk.user"), sight_of(request, self.state)
        return json_answer({"user": user.name if user else "local", "roles": sorted(user.roles) if user else [],
                            "nodes": sight.nodes, "home": sight.home})

    async def get_positions(self, request: Request) -> Response:
        """`GET /api/positions?scope=&account=&instrument=`: rows with value and Greeks on one snapshot."""
        account, instrument = request.query_params.get("account"), request.query_params.get("instrument")
        book = self.state.book
        chosen = self.state.rows_under(scope_of(request, self.state)).tolist()
        if account is not None:
            sight_of(request, self.state).need_account(account)
        for wanted, rows_of in ((account, book.rows_of), (instrument, book.rows_in)):
            if wanted is not None:
                among = set(rows_of(wanted))
                chosen = [row for row in chosen if row in among]
        chosen = [row for row in chosen if book.rollup.rows["live"][row]]
        out: list[dict[str, Any]] = []
        for start in range(0, len(chosen), AT_ONCE):  # the stream has its turns in between
            out += [self.state.valued(row) for row in chosen[start : start + AT_ONCE]]
            await asyncio.sleep(0)
        return json_answer(out)

    async def get_facts(self, request: Request) -> Response:
        """`GET /api/facts?before=&limit=`: alerts, rejects and breakers before a number, the newest page of them."""
        asked = request.query_params
        before, limit = asked.get("before", str(self.state.seq + 1)), asked.get("limit", str(FACTS_FIRST))
        for name, text, most in (("before", before, 1 << 53), ("limit", limit, FACTS_FIRST)):
            if not (text.isascii() and text.isdecimal() and len(text) < 18 and 1 <= int(text) <= most):
                raise HTTPException(400, f"{name}: expected a whole number of 1 to {most}, was {text!r}")
        facts, earlier = self.state.facts_before(int(before), int(limit), sight_of(request, self.state))
        return json_answer({"epoch": self.state.epoch, "facts": [{"event": f.event, "data": f.data} for f in facts],
                            "more": earlier > 0, "forgotten": self.state.facts_floor > 0})

    async def get_risk(self, request: Request) -> Response:
        """`GET /api/risk/{node}`."""
        risk = self.state.risk(known_node(request.path_params["node"], self.state, sight_of(request, self.state)))
        if risk is None:
            raise HTTPException(404, f"node {request.path_params['node']!r} is not known")
        held = self.state.models_since(risk.node, -1)
        if held is not None:
            models = (held[1].models or {}) | (risk.models or {})
            risk = msgspec.structs.replace(risk, models=models, top=held[1].top, prior_day=held[1].prior_day)
        return json_answer(risk)

    async def get_contributors(self, request: Request) -> Response:
        """`GET /api/risk/{node}/contributors?metric=`."""
        node = known_node(request.path_params["node"], self.state, sight_of(request, self.state))
        metric = request.query_params.get("metric", "var_hist")
        held = self.state.models_since(node, -1)
        if held is None or metric not in (held[1].top or {}):
            known = sorted(held[1].top or {}) if held else []
            raise HTTPException(404, f"metric: expected one of {known} of a measured node, was {metric!r} of {node!r}")
        return json_answer({"node": node, "metric": metric, "snapshot_id": held[1].snapshot_id, "ts": held[1].ts,
                      "base_currency": held[1].base_currency, "contributors": (held[1].top or {})[metric]})

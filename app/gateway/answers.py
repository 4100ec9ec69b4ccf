"""What every answer over HTTP shares."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.gateway.access import NODE, User
from app.gateway.sight import Sight
from app.gateway.state import GatewayState
from schemas.codec import encode


def json_answer(body: Any) -> Response:
    """Return a record or plain value as JSON."""
    return Response(encode(body), media_type="application/json")


async def error_answer(request: Request, error: Exception) -> Response:
    """Return a refused request as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def sight_of(request: Request, state: GatewayState) -> Sight:
    """Return what the user of a request may read; the firm where no token is asked for."""
    user: User | None = request.scope.get("deskrisk.user")
    return state.sights.of(user.nodes) if user is not None else state.sights.of()


def scope_of(request: Request, state: GatewayState) -> str:
    """Return the scope a request names, the user's own where it names none; answer 404 where there is no such node."""
    sight = sight_of(request, state)
    scope = request.query_params.get("scope", sight.home)
    if not NODE.match(scope):
        raise HTTPException(400, f"scope: expected firm or level:name, was {scope!r}")
    return known_node(scope, state, sight)


def known_node(node: str, state: GatewayState, sight: Sight) -> str:
    """Return a node's name; 403 where it may not be read, else 404 where there is none, of which nothing is kept."""
    if not state.knows(sight.need(node)):
        raise HTTPException(404, f"node {node!r} is not known")
    return node

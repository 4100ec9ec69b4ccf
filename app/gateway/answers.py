"""What every answer over HTTP shares."""

from __future__ import annotations

import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.gateway.state import GatewayState
from schemas.codec import encode

_SCOPE = re.compile(r"^(firm|[a-z_]+:[^\s]{1,128})$")


def json_answer(body: Any) -> Response:
    """Return a record or plain value as JSON."""
    return Response(encode(body), media_type="application/json")


async def error_answer(request: Request, error: Exception) -> Response:
    """Return a refused request as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def scope_of(request: Request, state: GatewayState) -> str:
    """Return the scope a request names, the firm where it names none; answer 404 where there is no such node."""
    scope = request.query_params.get("scope", "firm")
    if not _SCOPE.match(scope):
        raise HTTPException(400, f"scope: expected firm or level:name, was {scope!r}")
    return known_node(scope, state)


def known_node(node: str, state: GatewayState) -> str:
    """Return a node's name; answer 404 where there is none of that name, and keep nothing of it."""
    if not state.knows(node):
        raise HTTPException(404, f"node {node!r} is not known")
    return node

"""What a gateway has read: for whoever waits for the consequences of a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.gateway.answers import json_answer
from tables.tail import Tail

#: a turn that is under way may have begun before what was just read
TURNS, TURN_TIMEOUT_S = 2, 5.0


def read_route(tails: Sequence[Tail], names: Mapping[str, str], turned: Callable[[], asyncio.Event]) -> Route:
    """Return `GET /health/read`: the next offset of every partition that is in what is answered from now on.

    Parameters
    ----------
    names : topics by their names on the broker
    turned : the event that the present turn sets at its end
    """
    async def answer(request: Request) -> Response:
        read: dict[str, list[tuple[int, int]]] = {}
        for tail in tails:
            for tp, offset in tail.positions.items():
                read.setdefault(names[tp.topic], []).append((tp.partition, offset))
        found: dict[str, Any] = {"read": read}
        for _ in range(TURNS):
            await asyncio.wait_for(turned().wait(), TURN_TIMEOUT_S)
        return json_answer(found)
    return Route("/health/read", answer)

"""Bodies of requests, which end somewhere."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request

#: an order, a limit, a question of a few dozen trades
BODY_BYTES_MAX = 262_144
#: all of it is here within
BODY_S = 10.0


async def body_of(request: Request) -> bytes:
    """Return the body of a request.

    Raises
    ------
    HTTPException
        413 where it is longer than any that we read, 408 where it does not come; the rest of it is not taken in.
    """
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                found += part
                if len(found) > BODY_BYTES_MAX:
                    raise HTTPException(413, f"body: expected at most {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise HTTPException(408, f"body: expected all of it within {BODY_S:g} s") from None
    return bytes(found)

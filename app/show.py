"""Asking a gateway, for the commands that print."""

from __future__ import annotations

from typing import Any

import aiohttp


async def get_json(url: str, query: dict[str, str]) -> Any:
    """Return the JSON at a URL.

    Raises
    ------
    ValueError
        With the gateway's own words where it refuses.
    """
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as reply:
        body = await reply.json()
        if reply.status != 200:
            raise ValueError(body.get("error", reply.reason))
        return body


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names; empty ones left out."""
    out: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            out[prefix + key] = value
    return out

"""Asking a gateway, for the commands that print."""

from __future__ import annotations

from typing import Any

import aiohttp

from app.settings import Settings


def _headers() -> dict[str, str]:
    token = Settings().api_token
    return {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}


async def _body(reply: aiohttp.ClientResponse) -> Any:
    body = await reply.json()
    if reply.status >= 400:
        raise ValueError(body.get("error", reply.reason))
    return body


async def get_json(url: str, query: dict[str, str]) -> Any:
    """Return the JSON at a URL.

    Raises
    ------
    ValueError
        With the gateway's own words where it refuses.
    """
    async with aiohttp.ClientSession(headers=_headers()) as session, session.get(url, params=query) as reply:
        return await _body(reply)


async def post_json(url: str, body: dict[str, Any]) -> Any:
    """Send JSON and return the JSON that is answered; see `get_json`."""
    async with aiohttp.ClientSession(headers=_headers()) as session, session.post(url, json=body) as reply:
        return await _body(reply)


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names; empty ones left out."""
    out: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            out[prefix + key] = value
    return out

"""Who may do what: bearer tokens or a cookie, compared in constant time; writes need a role, reads a granted node.

Without tokens in the settings reads are open (the gateway listens on the loopback address only) and every write is
refused. With them every request needs one, or only writes (``open_reads``, on the loopback address too).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app.request_bodies import body_of
from models.reference import FIRM

COOKIE = "deskrisk-session"
#: a node as a token grants it, or a request names it
NODE = re.compile(r"^(firm|[a-z_]+:[^\s]{1,128})$")
OPEN_PATHS = ("/login", "/health/", "/static/", "/vendor/")
LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>deskrisk: sign in</title>
<link rel="stylesheet" href="/static/app.css"><link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<main><section><div class="title"><h1>Sign in</h1></div>
%s<form method="post" action="/login"><label>Token <input type="password" name="token" autocomplete="off"></label>
<button>Sign in</button></form></section></main></html>"""


@dataclass(frozen=True)
class User:
    """A person or system that holds a token."""

    name: str
    roles: frozenset[str]
    #: what may be read: these and what lies under them; the first one is where the holder's page begins
    nodes: tuple[str, ...] = (FIRM,)


def parse_tokens(text: str | None) -> dict[str, User]:
    """Return users by token from ``token:user:role+role:node+node,...``; without nodes the firm.

    Raises
    ------
    ValueError
        An entry has another form, or a token is there twice (the token itself is never in the message).
    """
    out: dict[str, User] = {}
    for number, entry in enumerate((text or "").split(",") if text else [], 1):
        token, name, *rest = (*entry.strip().split(":", 3), "") if ":" not in entry else entry.strip().split(":", 3)
        if len(token) < 16 or not name:
            raise ValueError(f"api_tokens: entry {number}: expected token:user:roles, or with :nodes after it, "
                             "and a token of 16 characters or more")
        if token in out:
            raise ValueError(f"api_tokens: entry {number}: expected a token of its own, was that of another entry")
        nodes = tuple(rest[1].split("+")) if len(rest) > 1 else (FIRM,)
        if wrong := [node for node in nodes if not NODE.match(node)]:
            raise ValueError(f"api_tokens: entry {number}: expected nodes as firm or level:name joined by +, "
                             f"was {wrong[0]!r}")
        out[token] = User(name, frozenset(r for r in rest[0].split("+") if r) if rest else frozenset(), nodes)
    return out


class Access:
    """Middleware: finds the user of a request, refuses what needs one and has none."""

    def __init__(self, app: Any, tokens: dict[str, User], open_reads: bool = False) -> None:
        self.app, self.tokens, self._open_reads = app, tokens, open_reads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on with ``scope["deskrisk.user"]``, or answer 401."""
        if scope["type"] == "http":
            request = Request(scope)
            given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get(COOKIE, "")
            user = self._user_of(given)
            scope["deskrisk.user"], scope["deskrisk.user_of"] = user, self._user_of
            is_open = self._open_reads or scope["path"].startswith(OPEN_PATHS)  # every write needs a role besides
            if self.tokens and user is None and not is_open:
                response: Response = (RedirectResponse("/login", 303) if scope["path"] == "/"
                                      else JSONResponse({"error": "a token is needed"}, 401))
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _user_of(self, given: str) -> User | None:
        found = None
        for token, user in self.tokens.items():  # all of them, so that the time says nothing
            if hmac.compare_digest(token.encode(), given.encode()):
                found = user
        return found


def need_role(request: Request, role: str) -> User:
    """Return the user of a request that has a role; answer 401 or 403 otherwise."""
    user: User | None = request.scope.get("deskrisk.user")
    if user is None:
        raise HTTPException(401, "a token is needed (DESKRISK_API_TOKENS)")
    if role not in user.roles:
        raise HTTPException(403, f"role: expected {role!r}, {user.name} has {sorted(user.roles)}")
    return user


def need_one_of(request: Request, roles: Sequence[str]) -> User:
    """Return the user of a request that has one of some roles; answer 401 or 403 otherwise."""
    user: User | None = request.scope.get("deskrisk.user")
    if user is not None and not user.roles.isdisjoint(roles):
        return user
    return need_role(request, roles[0])


async def login(request: Request) -> Response:
    """`GET /login` shows a form; `POST /login` turns a token into a cookie that scripts cannot read."""
    if request.method == "GET":
        return HTMLResponse(LOGIN_PAGE % "")
    body = (await body_of(request)).decode(errors="replace")
    from urllib.parse import parse_qs

    token = parse_qs(body).get("token", [""])[0]
    if request.scope["deskrisk.user_of"](token) is None:
        return HTMLResponse(LOGIN_PAGE % '<p class="down">This token is not known.</p>', 401)
    response = RedirectResponse("/", 303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=43_200)
    return response

"""Who may do what: bearer tokens or a cookie, compared in constant time; writes need a role, reads a granted node.

Without tokens in the settings reads are open (the gateway listens on the loopback address only) and every write is
refused. With them every request needs one, or only writes (``open_reads``, on the loopback address too). A token may
end. The cookie of a page is not the token: it says until when its session lasts, signed with the token, so that every
process with the same tokens knows it, and it ends with its token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app.request_bodies import body_of
from models.reference import FIRM
from schemas.units import NS_PER_S, format_ts_ns, parse_ts_ns

COOKIE = "deskrisk-session"
#: a node as a token grants it, or a request names it
NODE = re.compile(r"^(firm|[a-z_]+:[^\s]{1,128})$")
#: how long a session lasts
SESSION_S = 43_200
#: from here on it is said that a token ends
SOON_S = 14 * 86_400
_DATE, _SESSION = re.compile(r"\d{4}-\d{2}-\d{2}"), re.compile(r"(\d{1,12})\.([0-9a-f]{64})")
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
    #: when the token ends; None: it does not
    until_ns: int | None = None

    def has_ended(self, now_ns: int) -> bool:
        """Return whether the token has ended."""
        return self.until_ns is not None and self.until_ns <= now_ns

    @property
    def ended(self) -> str:
        """What its holder is told."""
        return f"this token ended at {format_ts_ns(self.until_ns or 0)}: a new one is needed"


def parse_tokens(text: str | None) -> dict[str, User]:
    """Return users by token from ``token:user:role+role:node+node;until=TIME,...``; without nodes the firm.

    Without ``;until=`` a token does not end; with a date it ends with that day, UTC.

    Raises
    ------
    ValueError
        An entry has another form, or a token is there twice (the token itself is never in the message).
    """
    out: dict[str, User] = {}
    for number, entry in enumerate((text or "").split(",") if text else [], 1):
        entry, ends, end = entry.strip().partition(";until=")
        if ";" in entry:
            raise ValueError(f"api_tokens: entry {number}: expected nothing but until=TIME behind a semicolon")
        token, name, *rest = (*entry.split(":", 3), "") if ":" not in entry else entry.split(":", 3)
        if len(token) < 16 or not name:
            raise ValueError(f"api_tokens: entry {number}: expected token:user:roles, or with :nodes after it, "
                             "and a token of 16 characters or more")
        if token in out:
            raise ValueError(f"api_tokens: entry {number}: expected a token of its own, was that of another entry")
        nodes = tuple(rest[1].split("+")) if len(rest) > 1 else (FIRM,)
        if wrong := [node for node in nodes if not NODE.match(node)]:
            raise ValueError(f"api_tokens: entry {number}: expected nodes as firm or level:name joined by +, "
                             f"was {wrong[0]!r}")
        roles = frozenset(r for r in rest[0].split("+") if r) if rest else frozenset()
        try:
            out[token] = User(name, roles, nodes, _end_of(end) if ends else None)
        except ValueError as error:
            raise ValueError(f"api_tokens: entry {number}: {error}") from None
    return out


def _end_of(text: str) -> int:
    day = 86_400 * NS_PER_S if _DATE.fullmatch(text) else 0
    return parse_ts_ns(f"{text}T00:00:00Z" if day else text, "until") + day


def ending(users: Iterable[User], now_ns: int) -> list[tuple[User, bool]]:
    """Return whose tokens have ended, or end soon, and whether they have."""
    return [(user, user.has_ended(now_ns)) for user in users if user.has_ended(now_ns + SOON_S * NS_PER_S)]


class Access:
    """Middleware: finds the user of a request, refuses what needs one and has none, or one whose token has ended."""

    def __init__(self, app: Any, tokens: dict[str, User], open_reads: bool = False,
                 clock: Callable[[], int] = time.time_ns) -> None:
        self.app, self.tokens, self._open_reads, self._clock = app, tokens, open_reads, clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on with ``scope["deskrisk.user"]``, or answer 401."""
        if scope["type"] == "http":
            request = Request(scope)
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            bearer = scheme.lower() == "bearer"
            user = self.user_of(given.strip()) if bearer else self.user_in(request.cookies.get(COOKIE, ""))
            ended = user.ended if user is not None and user.has_ended(self._clock()) else None
            scope["deskrisk.user"], scope["deskrisk.access"] = user if ended is None else None, self
            is_open = self._open_reads or scope["path"].startswith(OPEN_PATHS)  # every write needs a role besides
            if (self.tokens and scope["deskrisk.user"] is None and not is_open) or (bearer and ended is not None):
                response: Response = (RedirectResponse("/login", 303) if scope["path"] == "/" and not bearer
                                      else JSONResponse({"error": ended or "a token is needed"}, 401))
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def now_ns(self) -> int:
        """Return the time by which tokens and sessions end."""
        return self._clock()

    def user_of(self, given: str) -> User | None:
        """Return whose a token is, also where it has ended."""
        found = None
        for token, user in self.tokens.items():  # all of them, so that the time says nothing
            if hmac.compare_digest(token.encode(), given.encode()):
                found = user
        return found

    def session(self, token: str, user: User) -> tuple[str, int]:
        """Return a cookie for who holds a token, and how many seconds it is good for: no longer than the token."""
        now_s = self._clock() // NS_PER_S
        left = SESSION_S if user.until_ns is None else min(SESSION_S, user.until_ns // NS_PER_S - now_s)
        return f"{now_s + left}.{_signed(token, str(now_s + left))}", left

    def user_in(self, cookie: str) -> User | None:
        """Return whose session a cookie is of; None where it has ended, or is none that was given here."""
        found, said = None, _SESSION.fullmatch(cookie)
        if said is not None and int(said[1]) * NS_PER_S > self._clock():
            for token, user in self.tokens.items():
                if hmac.compare_digest(_signed(token, said[1]), said[2]):
                    found = user
        return found


def _signed(token: str, ends_s: str) -> str:
    return hmac.new(token.encode(), f"{COOKIE} until {ends_s}".encode(), hashlib.sha256).hexdigest()


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
    token, access = parse_qs(body).get("token", [""])[0], request.scope["deskrisk.access"]
    user: User | None = access.user_of(token)
    if user is None or user.has_ended(access.now_ns()):
        said = "This token is not known." if user is None else f"{user.ended[0].upper()}{user.ended[1:]}."
        return HTMLResponse(LOGIN_PAGE % f'<p class="down">{said}</p>', 401)
    response = RedirectResponse("/", 303)
    cookie, seconds = access.session(token, user)
    response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", max_age=seconds,
                        secure=request.url.scheme == "https")
    return response

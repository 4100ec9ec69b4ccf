"""How many requests one user may make: writes, halts, reads that cost much, sign-ins; each by a bucket that refills.

What is beyond is answered 429 with when to try again, before anything of it is read.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse

from agents.ports import Counters

#: so many seconds of its rate a user may use at once
BURST_S = 10.0
#: users, and addresses of those that name themselves nobody, that are remembered
KEPT_MAX = 10_000
WRITES, HALTS, HEAVY, SIGN_INS = "writes", "halts", "heavy reads", "sign-ins"
SIGN_INS_PER_S = 10.0
_WRITING = frozenset({"POST", "PUT", "DELETE", "PATCH"})
_HEAVY = ("/api/decisions/", "/api/positions", "/api/snapshot", "/api/facts")


def kind_of(method: str, path: str) -> str | None:
    """Return what a request counts as; None: as nothing. Orders have windows of messages at their gate."""
    if path == "/api/whatif" or (method == "GET" and path.startswith(_HEAVY)):
        return HEAVY
    if method not in _WRITING or path == "/api/orders/check":
        return None
    if path.startswith("/api/breakers/"):  # by itself: no other write holds up a halt
        return HALTS
    return SIGN_INS if path == "/login" else WRITES if path.startswith("/api/") else None


class Paces:
    """Buckets by user and kind of request.

    Parameters
    ----------
    per_s : how many of a kind one user may make a second
    clock : seconds that only go on
    """

    def __init__(self, per_s: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._held: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def wait_s(self, who: str, kind: str) -> float:
        """Count a request; return 0, or how many seconds it is too early, and then it is not counted."""
        now, rate = self._clock(), self._per_s[kind]
        most = max(rate * BURST_S, 1.0)
        left, at = self._held.get((who, kind), (most, now))
        left = min(most, left + (now - at) * rate)
        enough = left >= 1.0 - 1e-9  # sums of floats
        self._held[who, kind] = max(left - enough, 0.0), now
        self._held.move_to_end((who, kind))
        if len(self._held) > KEPT_MAX:
            self._held.popitem(last=False)
        return 0.0 if enough else (1.0 - left) / rate


def who_asks(scope: Any) -> str:
    """Return whom a request counts for: its user, or the address it comes from."""
    user = scope.get("deskrisk.user")
    return f"user {user.name}" if user is not None else f"address {(scope.get('client') or ('?',))[0]}"


class Paced:
    """Middleware behind `Access`: answers 429 where a user makes more requests of a kind than its pace."""

    def __init__(self, app: Any, paces: Paces, counters: Counters) -> None:
        self.app, self._paces, self._counters = app, paces, counters

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on, or answer 429."""
        kind = kind_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if kind is not None:
            who = who_asks(scope)
            wait_s = self._paces.wait_s(who, kind)
            if wait_s:
                self._counters.add("requests_limited", kind=kind)
                await too_many(f"{kind} of {who}", wait_s)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def too_many(what: str, wait_s: float) -> JSONResponse:
    """Return the answer to a request that is too much, with when to try again."""
    seconds = math.ceil(wait_s)
    return JSONResponse({"error": f"too many {what}: try again in {seconds} s"}, 429,
                        headers={"Retry-After": str(seconds)})

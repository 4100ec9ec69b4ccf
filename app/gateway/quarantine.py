"""What was not applied, over HTTP and on the page: counts by topic and reason, and the newest records."""

from __future__ import annotations

import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.control import Refused
from app.gateway.access import need_one_of
from app.gateway.answers import json_answer, sight_of
from app.gateway.state import GatewayState
from app.quarantine import shortened, since_ns
from models.quarantined import QuarantineLog, explained
from schemas.records import Quarantined

#: records that are kept whole, and how many are answered at most
KEPT, SHOWN = 2_000, 200
ROLES = ("risk", "admin")


class QuarantineView:
    """The newest records of the topic, for people who may put right what they say."""

    def __init__(self, prefix: str, state: GatewayState) -> None:
        self._prefix, self._state = prefix, state
        self.log = QuarantineLog(KEPT)

    def take(self, record: Quarantined) -> None:
        """Take a record in, without its bytes."""
        self.log.take(shortened(record, 0))

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/quarantine", self.get)]

    async def get(self, request: Request) -> Response:
        """`GET /api/quarantine?topic=&reason=&since=&limit=`: counts, and the newest records (roles risk, admin)."""
        need_one_of(request, ROLES)
        sight_of(request, self._state).need_whole("quarantine")  # of what could not be read nobody knows the account
        asked = request.query_params
        unknown = sorted(asked.keys() - {"topic", "reason", "since", "limit"})
        limit = asked.get("limit", str(SHOWN))
        if unknown or not limit.isdecimal() or not 1 <= int(limit[:6]) <= SHOWN:
            raise HTTPException(400, f"{unknown[0]}: expected topic, reason, since or limit" if unknown else
                                f"limit: expected 1 to {SHOWN}, was {limit!r}")
        try:
            after = since_ns(asked.get("since"), time.time_ns())
        except Refused as error:
            raise HTTPException(400, str(error)) from error
        topic = asked.get("topic")
        if topic is not None:
            topic = self._prefix + topic.removeprefix(self._prefix)
        found = self.log.chosen(topic, asked.get("reason"), after)[-int(limit):]
        return json_answer({"waiting": self.log.summary(), "kept": len(self.log.records),
                            "records": [explained(r, r.topic.removeprefix(self._prefix)) for r in reversed(found)]})

"""The local gate over HTTP: orders to the worker that owns the account; another worker's are redirected to it.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from agents.gate import GateStage
from app.gate_addresses import GateAddresses
from app.gateway.access import Access, User, need_role
from app.gateway.answers import error_answer, json_answer
from app.gateway.sight import Sight
from app.request_bodies import body_of
from models.reference import FIRM
from schemas.codec import decoder_of
from schemas.records import Order
from schemas.refusal import refusal
from tables.kafka import owner_partition
from tables.tasks import process

log = logging.getLogger(__name__)
_order = decoder_of(Order)


class GateHttp:
    """Serves the gate of this worker: `POST /orders` decides (role `trader`), `POST /orders/check` leaves no trace."""

    def __init__(self, stage: GateStage, addresses: GateAddresses, partitions: int, host: str, port: int,
                 tokens: dict[str, User]) -> None:
        self._stage, self._addresses, self._partitions = stage, addresses, partitions
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # the protocol is named: asyncio sends at once (TCP_NODELAY) only where it knows that the socket is TCP
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        bound = self._socket.getsockname()[1]
        self.address = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        app = Starlette(routes=[Route("/orders", self.decide, methods=["POST"]),
                                Route("/orders/check", self.check, methods=["POST"])],
                        middleware=[Middleware(Access, tokens=tokens)],
                        exception_handlers={HTTPException: error_answer})
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False,
                                                     timeout_graceful_shutdown=1))
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        self._task = process.start("gate over HTTP", lambda: self._server._serve([self._socket]),
                                   may_return=lambda: self._server.should_exit)
        log.info("gate over HTTP on %s", self.address)

    async def decide(self, request: Request) -> Response:
        """`POST /orders`: the decision, which counts."""
        need_role(request, "trader")
        order = _read(await body_of(request))
        elsewhere = self._elsewhere(order, request)
        if elsewhere is not None:
            return elsewhere
        sight = self._sight(request, order)
        decision = self._stage.judge(order, None)
        (kept,) = self._stage.keep([decision])
        self._stage.record(decision, kept)
        return json_answer(sight.decision(msgspec.structs.replace(decision, inputs={}, order=None)))

    async def check(self, request: Request) -> Response:
        """`POST /orders/check`: the decision the order would get."""
        order = _read(await body_of(request))
        elsewhere = self._elsewhere(order, request)
        if elsewhere is not None:
            return elsewhere
        sight = self._sight(request, order)
        try:
            return json_answer(sight.decision(self._stage.check(order)))
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    def _sight(self, request: Request, order: Order) -> Sight:
        """Return what a request's user may read; answer 403 where the account of the order is no part of it."""
        user: User | None = request.scope.get("deskrisk.user")
        book = self._stage.gate.book
        nodes = user.nodes if user is not None else (FIRM,)
        sight = Sight(nodes, book.reference.account_records, book.levels)
        sight.look(0, 0)
        sight.need_account(order.account)
        return sight

    def _elsewhere(self, order: Order, request: Request) -> Response | None:
        partition = owner_partition(order.account, self._partitions)
        if self._stage.owns(partition):
            return None
        owner = self._addresses.of_partition.get(partition)
        address = owner.address if owner is not None else None
        if address is None or address == self.address:
            raise HTTPException(503, f"account: no gate answers for {order.account!r} (partition {partition}) now")
        return RedirectResponse(address + request.url.path, 307)

    async def stop(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3.0)
        self._socket.close()


def _read(body: bytes) -> Order:
    try:
        return _order.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise HTTPException(400, refusal(error, body, Order)) from error

"""The local gate: orders over a Unix socket, decided by the worker that owns the account, without Kafka in between.

One JSON order a line, one JSON decision a line back, in order. The decision is on its way to the log when it is
answered; what a crash cuts off in that moment is not on the log, and its fills arrive as trades like all others. A
first line ``{"session": "name", "cancel_on_disconnect": true}`` has everything of the session cancelled when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec

from agents.gate import GateStage
from schemas.codec import decoder_of, encode
from schemas.records import Order
from tables.kafka import owner_partition

log = logging.getLogger(__name__)
LINE_MAX = 65_536
_order = decoder_of(Order)


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say first."""

    session: str
    cancel_on_disconnect: bool = False


class Options(msgspec.Struct, frozen=True):
    """What a line says beside its order; `dry_run`: it is checked and leaves no trace."""

    dry_run: bool = False


_options = msgspec.json.Decoder(Options)


class GateSocket:
    """Serves the gate of this worker on a socket that only its user may open."""

    def __init__(self, stage: GateStage, path: Path, partitions: int) -> None:
        self._stage, self._path, self._partitions = stage, path, partitions
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE_MAX)
        self._path.chmod(0o600)
        log.info("local gate on %s", self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session: Session | None = None
        mine: set[str] = set()
        first = True
        try:
            while line := await reader.readline():
                if first and b'"session"' in line:
                    session = msgspec.json.decode(line, type=Session)
                    writer.write(b'{"session":"open"}\n')
                else:
                    writer.write(self._answer(line, mine) + b"\n")
                first = False
                await writer.drain()
        except (ValueError, msgspec.DecodeError, ConnectionError) as error:  # a line too long, a broken pipe
            with contextlib.suppress(ConnectionError):
                writer.write(encode({"error": str(error)}) + b"\n")
                await writer.drain()
        finally:
            if session is not None and session.cancel_on_disconnect and mine:
                count = self._stage.cancel_orders(mine, f"session {session.session} is gone")
                log.info("session %s is gone: %d orders cancelled", session.session, count)
            writer.close()

    def _answer(self, line: bytes, mine: set[str]) -> bytes:
        try:
            order = _order.decode(line)
            dry_run = b'"dry_run"' in line and _options.decode(line).dry_run
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            return encode({"error": str(error)})
        partition = owner_partition(order.account, self._partitions)
        if not self._stage.owns(partition):
            return encode({"redirect": partition, "error": f"account {order.account!r} is another worker's"})
        if dry_run:
            try:
                return encode(self._stage.check(order))
            except ValueError as error:
                return encode({"error": str(error)})
        decision = self._stage.decide(order, None)
        if decision.outcome == "accept":
            mine.add(order.order_id)
        return encode(msgspec.structs.replace(decision, inputs={}, order=None))

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

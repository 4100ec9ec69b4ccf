"""The local gate: orders over a Unix socket, decided by the worker that owns the account, without Kafka in between.

One JSON order a line, one JSON decision a line back, in order. The decision is on its way to the log as soon as it is
answered; what a crash cuts off in that moment is not on the log, and its fills arrive as trades like all others. A
first line ``{"session": "name", "cancel_on_disconnect": true}`` has everything of the session cancelled when it ends.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import cast

import msgspec

from agents.gate import GateStage
from app.gate_addresses import GateAddresses
from schemas.codec import JsonDecoder, decoder_of, encode
from schemas.records import Decision, Order
from schemas.refusal import refusal
from tables.kafka import owner_partition

log = logging.getLogger(__name__)
LINE_MAX = 65_536
#: who sends many orders at once reads the first answers while the last are decided
ANSWERS_AT_ONCE = 8
#: ids of a session's orders are looked through when there are twice as many as orders work, and so many
IDS_MIN = 256
#: decisions that were answered here are gathered so long on their way to the log: fewer requests, nobody waits for them
ANSWERED_LINGER_S = 0.008
_order = decoder_of(Order)


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say first."""

    session: str
    cancel_on_disconnect: bool = False


class Options(msgspec.Struct, frozen=True):
    """What a line says beside its order; `dry_run`: it is checked and leaves no trace."""

    dry_run: bool = False


_options = JsonDecoder(Options)
_session = JsonDecoder(Session)


class GateSocket:
    """Serves the gate of this worker on a socket that only its user may open."""

    def __init__(self, stage: GateStage, addresses: GateAddresses, path: Path, partitions: int) -> None:
        self._stage, self._addresses, self._path, self._partitions = stage, addresses, path, partitions
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Connection(self), str(self._path))
        self._path.chmod(0o600)
        log.info("local gate on %s", self._path)

    def cancel(self, session: str, orders: set[str]) -> None:
        """Cancel what is left of a session that ended."""
        count = self._stage.cancel_orders(orders, f"session {session} is gone")
        log.info("session %s is gone: %d orders cancelled", session, count)

    def answer(self, line: bytes, session: str | None, mine: set[str], decided: list[Decision]) -> bytes:
        """Return the answer to an order; a decision joins ``decided``, an accepted order ``mine``.

        ``session``: its end cancels what is let through.
        """
        try:
            order = _order.decode(line)
            dry_run = b'"dry_run"' in line and _options.decode(line).dry_run
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            return encode({"error": refusal(error, line, Order)})
        partition = owner_partition(order.account, self._partitions)
        if not self._stage.owns(partition):
            return self._elsewhere(order.account, partition)
        if dry_run:
            try:
                return encode(self._stage.check(order))
            except ValueError as error:
                return encode({"error": str(error)})
        decision = self._stage.judge(order, None, session)
        decided.append(decision)
        if session is not None and decision.outcome == "accept" and order.action != "cancel":
            mine.add(order.order_id)
            if len(mine) > 2 * self._stage.working() + IDS_MIN:  # of orders that have ended nobody asks any more
                mine.intersection_update(self._stage.still_working(mine))
        return encode(msgspec.structs.replace(decision, inputs={}, order=None))

    def _elsewhere(self, account: str, partition: int) -> bytes:
        """Say who decides an account: its partition, and where its gate answers, as far as that is known."""
        owner = self._addresses.of_partition.get(partition)
        where = {} if owner is None else {"address": owner.address, "socket": owner.socket, "host": owner.host}
        return encode({"redirect": partition, "error": f"account {account!r} is another worker's by now"} | where)

    def keep(self, decided: list[Decision]) -> list[bytes]:
        """Have decisions on disk before they are answered; return them encoded."""
        return self._stage.keep(decided)

    def record(self, decided: list[Decision], kept: list[bytes]) -> None:
        """Send what was answered on its way to the log."""
        for decision, value in zip(decided, kept, strict=True):
            self._stage.record(decision, value, ANSWERED_LINGER_S)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)


class Connection(asyncio.Protocol):
    """One client: whatever whole lines have come are answered at once, without a turn of the loop for each."""

    def __init__(self, gate: GateSocket) -> None:
        self._gate = gate
        self._rest = b""
        #: the session whose end cancels its orders, where it asked for that
        self._cancels: str | None = None
        self._first = True
        self._mine: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Know where answers go."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer the lines that are whole."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        for start in range(0, len(lines), ANSWERS_AT_ONCE):
            answers: list[bytes] = []
            decided: list[Decision] = []
            ends = False
            try:
                for line in lines[start : start + ANSWERS_AT_ONCE]:
                    answers.append(self._line(line, decided))
            except (ValueError, msgspec.DecodeError) as error:  # a line too long, a session that is none
                answers.append(encode({"error": str(error)}))
                ends = True
            finally:  # what was decided counts, whatever a later line does
                kept = self._gate.keep(decided)
                self._transport.write(b"\n".join([*answers, b""]))
                self._gate.record(decided, kept)  # whoever asked reads meanwhile
            if ends:
                self._transport.close()
                return

    def eof_received(self) -> None:
        """Answer a last line without an end."""
        if self._rest:
            self.data_received(b"\n")

    def _line(self, line: bytes, decided: list[Decision]) -> bytes:
        if len(line) > LINE_MAX:
            raise ValueError(f"line: expected at most {LINE_MAX} bytes, was {len(line)}")
        first, self._first = self._first, False
        if first and b'"session"' in line:
            session = _session.decode(line)
            self._cancels = session.session if session.cancel_on_disconnect else None
            return b'{"session":"open"}'
        return self._gate.answer(line, self._cancels, self._mine, decided)

    def pause_writing(self) -> None:
        """Read no more orders from who does not read the answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the session wanted cancelled when it ends."""
        if self._cancels is not None and self._mine:
            self._gate.cancel(self._cancels, self._mine)

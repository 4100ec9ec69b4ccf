"""A proxy before a broker that loses, holds, delays and refuses requests, and keeps a tape of what it did.

Clients that are given its address stay with it: where an answer names the broker's address (of metadata and of
coordinators), the proxy's stands there instead. It listens on the broker's own host, so that both are equally long and
no answer has to be taken apart. Plain text alone, and one broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.faults.plan import DELIVERED, Action, Fault, Faults, Schedule
from app.faults.wire import Api, Head, codes_of, refusal, transactional_id

#: answers that name the address of the broker
_NAMES_BROKERS = (Api.METADATA, Api.FIND_COORDINATOR)
#: a broker that takes longer to answer a request that was held is not asked on
HELD_ANSWER_S = 10.0
START_S = 10.0
_GONE = (asyncio.IncompleteReadError, OSError)


@dataclass(eq=False)
class Held:
    """A request that has not been delivered yet."""

    head: Head
    fault: Fault
    text: str
    left: int

    def waits_for(self, head: Head) -> bool:
        """Return whether a request is one of those after which this one is delivered."""
        return head.api == self.fault.until and (not self.text or self.text.encode() in head.frame)


@dataclass
class Asked:
    """A request that the broker has to answer."""

    head: Head
    fault: Fault | None
    #: what is delivered once that many of these were answered
    before: list[Held]


@dataclass(eq=False)
class Link:
    """One client's connection, and the one to the broker that was made for it."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    asked: dict[int, Asked] = field(default_factory=dict)
    all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    #: nothing more is heard on it
    dark: bool = False
    over: bool = False

    def cut(self) -> None:
        """Cut both."""
        self.over = True
        self.asked.clear()
        self.all_answered.set()
        for writer in (self.client, self.broker):
            if not writer.transport.is_closing():
                writer.transport.abort()


class FaultProxy:
    """The proxy, in a thread of its own: whoever uses it may block.

    Parameters
    ----------
    upstream : address of the broker
    faults : what goes wrong
    """

    def __init__(self, upstream: str, faults: Faults | None = None) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._faults = faults or Schedule()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault proxy", daemon=True)
        self._links: set[Link] = set()
        self._held: list[Held] = []
        self._began = time.monotonic()
        self._problems: list[str] = []
        self.address = ""
        #: what was done, in the order it was done
        self.tape: list[dict[str, Any]] = []

    def start(self) -> str:
        """Listen; return the address."""
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f"the proxy does not listen after {START_S} s")
        return self.address

    def stop(self) -> None:
        """Cut every connection and end; what was held is never delivered.

        Raises
        ------
        RuntimeError
            Something went wrong that was not asked for.
        """
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._problems:
            raise RuntimeError("; ".join(self._problems))

    def __enter__(self) -> FaultProxy:
        """Listen."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop()

    def arm(self, faults: Faults) -> None:
        """Take other faults from now on."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: setattr(self, "_faults", faults))

    def cut_all(self) -> None:
        """Cut every connection there is."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cut_all)

    def release(self) -> None:
        """Deliver what is held, and wait until the broker has answered."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._release(list(self._held)), self._loop).result(2 * HELD_ANSWER_S)

    def hurt(self) -> list[dict[str, Any]]:
        """Return the lines of the tape that say what was hurt."""
        return [line for line in self.tape if line["what"] == "hurt"]

    def write_tape(self, path: Path) -> None:
        """Write the tape, a line each."""
        path.write_text("".join(json.dumps(line) + "\n" for line in self.tape))

    # ---- in the thread --------------------------------------------------------------------------------------------
    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, self._host, 0)
        self.address = f"{self._host}:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        while self._links:
            self._cut_all()
            await asyncio.sleep(0.01)

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, broker = await asyncio.open_connection(self._host, self._port)
        except OSError:  # the broker is away, for this client too
            writer.transport.abort()
            return
        link = Link(writer, broker)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(reader, link), self._answers(answers, link))
        finally:
            link.cut()
            self._links.discard(link)

    async def _requests(self, reader: asyncio.StreamReader, link: Link) -> None:
        with contextlib.suppress(*_GONE):
            while True:
                head = Head.of(await _frame(reader))
                if link.dark:
                    continue  # the client may go on sending; nobody hears it
                fault = self._faults.of(head)
                if fault is not None:
                    self._say("hurt", head, fault)
                if not await self._hurt(head, fault, link):
                    break
        link.cut()

    async def _hurt(self, head: Head, fault: Fault | None, link: Link) -> bool:
        """Do to a request what is to be done; return whether the connection goes on."""
        if fault is None or fault.action in DELIVERED:
            if fault is not None and fault.seconds:
                await asyncio.sleep(fault.seconds)
            before = [held for held in self._held if held.waits_for(head)]
            link.asked[head.correlation] = Asked(head, fault, before)
            link.all_answered.clear()
            await _send(link.broker, head.frame)
        elif fault.action is Action.BLACK_HOLE:
            link.dark = True
        elif fault.action is Action.ERROR:
            while link.asked:  # answers come in the order of their requests
                await link.all_answered.wait()
            await _send(link.client, refusal(head, fault.error_code))
        else:
            if fault.action is Action.HOLD:
                self._held.append(Held(head, fault, fault.having or transactional_id(head), fault.until_count))
            return False
        return True

    async def _answers(self, reader: asyncio.StreamReader, link: Link) -> None:
        with contextlib.suppress(*_GONE):
            while True:
                frame = await _frame(reader)
                asked = link.asked.pop(int.from_bytes(frame[:4], "big"), None)
                if not link.asked:
                    link.all_answered.set()
                if link.over:
                    break
                if asked is None:
                    self._problems.append("the broker answered what nobody asked")
                    break
                if asked.head.api in _NAMES_BROKERS:
                    frame = self._readdressed(asked.head, frame)
                for held in asked.before:
                    held.left -= 1
                await self._release([held for held in asked.before if held.left == 0])
                if asked.fault is not None and asked.fault.action in (Action.LOSE_ANSWER, Action.SILENCE):
                    self._say("answer lost", asked.head, asked.fault, codes=codes_of(asked.head, frame))
                    if asked.fault.action is Action.LOSE_ANSWER:
                        break
                    link.dark = True
                if not link.dark:
                    await _send(link.client, frame)
        link.cut()

    def _readdressed(self, head: Head, frame: bytes) -> bytes:
        """Put the proxy's address in place of the broker's."""
        port = int(self.address.rpartition(":")[2])
        theirs, ours = (self._host.encode() + p.to_bytes(4, "big") for p in (self._port, port))
        if head.api == Api.METADATA and theirs not in frame:
            self._problems.append(f"the broker calls itself by another address than {self._host}:{self._port}")
        return frame.replace(theirs, ours)

    async def _release(self, due: list[Held]) -> None:
        """Deliver held requests on connections of their own, and wait for the broker's answers."""
        for held in due:
            if held not in self._held:
                continue
            self._held.remove(held)
            try:
                answer = await asyncio.wait_for(self._ask(held.head), HELD_ANSWER_S)
            except _GONE as error:
                self._say("not delivered", held.head, held.fault, error=repr(error))
            else:
                self._say("delivered", held.head, held.fault, codes=codes_of(held.head, answer))

    async def _ask(self, head: Head) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            await _send(writer, head.frame)
            return await _frame(reader)
        finally:
            writer.transport.abort()

    def _say(self, what: str, head: Head, fault: Fault, **more: Any) -> None:
        self.tape.append({"at_s": round(time.monotonic() - self._began, 3), "what": what, "client": head.client,
                          "transactional_id": transactional_id(head), "fault": fault.record()} | more)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()

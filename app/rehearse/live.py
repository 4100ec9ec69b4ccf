"""An installation with everything that scenarios share: its outputs, how far it is, a producer, a session."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer

from app.rehearse.installation import Installation
from app.rehearse.outputs import Outputs
from app.rehearse.page import Browser
from app.rehearse.waiting import Waiting

#: commands of users that run at a time: each is a process of its own
COMMANDS_AT_ONCE = 2


class Live:
    """What a scenario needs of the installation it runs in."""

    def __init__(self, installation: Installation, is_embedded: bool) -> None:
        self.installation, self.is_embedded = installation, is_embedded
        self.outputs = Outputs(installation.settings)
        self.commands = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self.browser = Browser()
        self.session: aiohttp.ClientSession
        self.waiting: Waiting
        self.producer: AIOKafkaProducer
        self._numbers = itertools.count(1)

    @property
    def topics(self) -> dict[str, str]:
        """Topics on the broker by name."""
        return self.installation.settings.topics()

    async def start(self) -> None:
        """Start the installation, and connect to it."""
        await self.installation.start()
        self.session = aiohttp.ClientSession()
        self.waiting = Waiting(self.installation, self.outputs, self.session)
        self.producer = self.installation.settings.client().producer(linger_ms=0)
        await self.producer.start()
        await self.outputs.start()
        await self.waiting.start()

    async def publish(self, topic: str, key: bytes | None, value: bytes | None,
                      partition: int | None) -> tuple[int, int]:
        """Send one record as a plain client does; return its partition and offset."""
        name = self.topics.get(topic, self.installation.settings.prefix + topic)
        found: Any = await self.producer.send_and_wait(name, value, key, partition)
        return int(found.partition), int(found.offset)

    def headers(self, person: str, scenario: str) -> dict[str, str]:
        """Return the headers of a request by a kind of person; ``scenario``: whose dealer."""
        if person == "nobody":
            return {}
        held = self.installation
        token = held.dealers.get(scenario, held.tokens["trader"]) if person == "dealer" else held.tokens[person]
        return {"Authorization": f"Bearer {token}"}

    async def stop(self) -> None:
        """Disconnect, and stop the installation."""
        for part in (getattr(self, "waiting", None), self.outputs, getattr(self, "producer", None)):
            if part is not None:
                await part.stop()
        if hasattr(self, "session"):
            await self.session.close()
        await self.browser.stop()
        await self.installation.stop()

"""What was handed to the publisher is with the broker when it says so, also when it is told to stop amid sending."""

from __future__ import annotations

import asyncio
from typing import Any

from app.publisher import BatchingPublisher


class SlowProducer:
    """Takes batches as a broker does that answers slowly."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    def create_batch(self) -> Any:
        """Return a batch of at most three records."""
        class Batch(list[bytes]):
            def append(self, key: bytes | None, value: bytes, timestamp: int | None, headers: Any) -> Any:  # type: ignore[override]
                if len(self) == 3:
                    return None
                super().append(value)
                return True
        return Batch()

    async def send_batch(self, batch: list[bytes], topic: str, partition: int) -> asyncio.Future[Any]:
        """Take a batch after a while."""
        await asyncio.sleep(0.01)
        self.sent.append(list(batch))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Client:
    """Makes that producer."""

    def __init__(self) -> None:
        self.made = SlowProducer()

    def producer(self, **_: Any) -> SlowProducer:
        """Return it."""
        return self.made


def test_nothing_is_left_behind_by_a_stop_or_a_flush_amid_sending() -> None:
    async def scenario(stop: bool) -> list[bytes]:
        client = Client()
        publisher = BatchingPublisher(client, {"t": 1}, linger_s=0.001)  # type: ignore[arg-type]
        await publisher.start()
        for k in range(60):
            publisher.send("t", b"k", b"%d" % k, 0)
        await asyncio.sleep(0.05)  # some of the twenty batches are out, the rest is taken
        publisher.send("t", b"k", b"60", 0)
        await (publisher.stop() if stop else publisher.flush())
        found = [v for batch in client.made.sent for v in batch]
        if not stop:
            await publisher.stop()
        return found

    for stop in (True, False):
        assert asyncio.run(scenario(stop)) == [b"%d" % k for k in range(61)]

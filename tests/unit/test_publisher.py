"""What was handed to the publisher is with the broker when it says so, also when it is told to stop amid sending."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
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

            def record_count(self) -> int:
                return len(self)
        return Batch()

    async def send_batch(self, batch: list[bytes], topic: str, partition: int) -> asyncio.Future[Any]:
        """Take a batch after a while."""
        await asyncio.sleep(0.01)
        offset = sum(map(len, self.sent))
        self.sent.append(list(batch))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(offset=offset))
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


def test_what_follows_a_batch_that_is_on_its_way_is_gathered_until_it_has_arrived() -> None:
    class Held(SlowProducer):
        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[asyncio.Future[Any]] = []

        async def send_batch(self, batch: list[bytes], topic: str, partition: int) -> asyncio.Future[Any]:
            self.sent.append([b"%d" % partition, *batch])
            self.waiting.append(asyncio.get_running_loop().create_future())
            return self.waiting[-1]

    async def scenario() -> None:
        client = Client()
        client.made = Held()
        publisher = BatchingPublisher(client, {"t": 2}, linger_s=0.0)  # type: ignore[arg-type]
        await publisher.start()

        async def settle() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
        publisher.send("t", b"k", b"a", 0)
        await settle()
        gathered = [publisher.send("t", b"k", value, 0) for value in (b"b", b"c")]
        publisher.send("t", b"k", b"x", 1)  # another partition waits for nobody
        await settle()
        assert client.made.sent == [[b"0", b"a"], [b"1", b"x"]]
        client.made.waiting[0].set_result(None)
        await settle()
        assert client.made.sent[2:] == [[b"0", b"b", b"c"]] and not any(f.done() for f in gathered)
        client.made.waiting[2].set_result(None)
        await settle()
        assert all(f.done() for f in gathered)
        # lingering: what may wait goes out with the next that does not
        publisher.send("t", b"k", b"late", 0, linger_s=60.0)
        await settle()
        assert len(client.made.sent) == 3
        publisher.send("t", b"k", b"now", 0)
        await settle()
        assert client.made.sent[3:] == [[b"0", b"late", b"now"]]
        # a batch that has arrived does not send what is still gathered
        publisher.send("t", b"k", b"later", 0, linger_s=60.0)
        client.made.waiting[3].set_result(None)
        await settle()
        assert len(client.made.sent) == 4
        publisher.send("t", b"k", b"last", 0)
        await settle()
        assert client.made.sent[4:] == [[b"0", b"later", b"last"]]
        for f in client.made.waiting:
            if not f.done():
                f.set_result(None)
        await publisher.stop()

    asyncio.run(scenario())


def test_a_cut_is_the_offset_behind_what_was_sent_before_it_and_no_further() -> None:
    async def scenario() -> None:
        publisher = BatchingPublisher(Client(), {"t": 1}, linger_s=0.001)  # type: ignore[arg-type]
        await publisher.start()
        assert await publisher.cut("t", 0) is None
        for count in (1, 4, 3):  # a batch that is open, a full one before it, one that is on its way
            for k in range(count):
                publisher.send("t", b"k", b"%d" % k, 0)
            cut = publisher.cut("t", 0)
            publisher.send("t", b"k", b"later", 0)
            publisher.send("t", b"k", b"later", 0)
            before = (await cut) or 0
            await publisher.flush()
            sent = [value for batch in publisher._producer.sent for value in batch]
            assert sent[before:] == [b"later", b"later"] == sent[-2:]
            assert await publisher.cut("t", 0) == len(sent)
        await publisher.stop()

    asyncio.run(scenario())

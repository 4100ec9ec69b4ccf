"""What stands though the newest record of its key on a compacted topic is another one: it is written once more.

Compaction leaves the newest record of a key. Where that one was refused, or is of something else than its key says,
whoever starts afterwards would not have what all others have. One of its readers writes it, see `take`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agents.ports import Publisher

log = logging.getLogger(__name__)


class Again(NamedTuple):
    """What is to be the newest record of its key."""

    topic: str
    key: str
    #: None: nothing stands under the key, and what came there is withdrawn
    value: bytes | None
    why: str


class Displaced:
    """Keys whose newest record is not what stands, until a record of them that stands has come.

    Parameters
    ----------
    standing : by topic, what returns the record that stands under a key, encoded; None: there is none
    """

    def __init__(self, standing: Mapping[str, Callable[[str], bytes | None]]) -> None:
        self._standing = standing
        self._wrong: dict[tuple[str, str], tuple[str, bool]] = {}
        #: what was handed out of those, until it came: nobody answers himself for ever
        self._handed_out: set[tuple[str, str]] = set()

    def refused(self, topic: str, key: str, why: str, withdraw: bool = False) -> None:
        """Note that the newest record of a key was refused.

        Parameters
        ----------
        withdraw : it is to go where nothing stands under the key: who starts later might take it
        """
        if topic in self._standing:
            self._note(topic, key, why, withdraw)

    def came(self, topic: str, key: str, own: str) -> None:
        """Note that a record which stands came under a key; ``own``: the key of what it is about."""
        if key != own:
            why = f"key: expected {own!r}, was {key!r}"
            self._note(topic, own, why, withdraw=False)
            self._note(topic, key, why, withdraw=True)
            return
        self._wrong.pop((topic, key), None)
        self._handed_out.discard((topic, key))

    def gone(self, topic: str, key: str) -> None:
        """Note that a key was withdrawn, and nothing stands under it."""
        self.came(topic, key, key)

    def _note(self, topic: str, key: str, why: str, withdraw: bool) -> None:
        # what has no key is not displaced by anything, and displaces nothing
        if key and (topic, key) not in self._handed_out and (withdraw or self._standing[topic](key) is not None):
            self._wrong.setdefault((topic, key), (why, withdraw))

    def take(self) -> list[Again]:
        """Return what is to be written once more, each once: for one process of all that read the topics."""
        out = [Again(topic, key, value, why) for (topic, key), (why, withdraw) in self._wrong.items()
               if (value := self._standing[topic](key)) is not None or withdraw]
        self._handed_out.update(self._wrong)
        self._wrong.clear()
        return out

    def write(self, publisher: Publisher, topics: Mapping[str, str]) -> None:
        """Write what `take` returns; the topics have one partition."""
        for topic, key, value, why in self.take():
            log.error("%s %s: written once more as it stands: %s", topic, key, why)
            publisher.send(topics[topic], key.encode(), value, 0)

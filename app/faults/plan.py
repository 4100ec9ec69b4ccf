"""Which requests are hurt, and how: named one by one, drawn with a seed, or taken from the tape of another run."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from app.faults.wire import Api, Head


class Action(StrEnum):
    """What happens to a request."""

    #: delivered ``seconds`` late, and with it what follows on its connection
    DELAY = "delay"
    #: not delivered; the connection is cut
    CUT = "cut"
    #: not delivered yet, and the connection is cut; delivered in the middle of what comes later
    HOLD = "hold"
    #: delivered; the connection is cut instead of its answer
    LOSE_ANSWER = "lose_answer"
    #: not delivered; nothing more is heard on its connection, which stays open
    BLACK_HOLE = "black_hole"
    #: delivered; nothing more is heard on its connection, which stays open
    SILENCE = "silence"
    #: not delivered, answered with ``error_code``
    ERROR = "error"


#: whether a request that is hurt so reaches the broker at once
DELIVERED = frozenset({Action.DELAY, Action.LOSE_ANSWER, Action.SILENCE})


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Parameters
    ----------
    api, having : the requests that count: of a key, with a text in them (a transactional id, a topic)
    action : what happens to them
    nth, times : which of them, from 1, and how many in a row
    seconds : of a delay
    error_code : of an answer that refuses
    until, until_count : a held request is delivered before the answer to so many later requests of this key (with the
        same text) is passed on; None: when it is told to
    """

    api: Api
    action: Action
    nth: int = 1
    times: int = 1
    having: str = ""
    seconds: float = 0.0
    error_code: int = 0
    until: Api | None = None
    until_count: int = 1

    def __post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.nth < 1 or self.times < 1 or self.until_count < 1:
            raise ValueError(f"nth, times, until_count: expected at least 1, was {self}")
        if (self.action is Action.ERROR) != (self.error_code != 0):
            raise ValueError(f"error_code: expected one for {Action.ERROR} and for nothing else, was {self}")
        if (self.action is Action.DELAY) != (self.seconds > 0):
            raise ValueError(f"seconds: expected some for {Action.DELAY} and for nothing else, was {self}")
        if self.until is not None and self.action is not Action.HOLD:
            raise ValueError(f"until: expected for {Action.HOLD} only, was {self}")

    def counts(self, head: Head) -> bool:
        """Return whether a request is one of those that count."""
        return head.api == self.api and (not self.having or self.having.encode() in head.frame)

    def record(self) -> dict[str, Any]:
        """Return it as a line of a tape says it."""
        return asdict(self) | {"api": self.api.name, "until": None if self.until is None else self.until.name}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Fault:
        """Read what a line of a tape says."""
        fields = {name: record[name] for name in cls.__dataclass_fields__}
        until = fields["until"]
        return cls(**fields | {"api": Api[fields["api"]], "action": Action(fields["action"]),
                               "until": None if until is None else Api[until]})


class Faults(Protocol):
    """Says of each request, in the order of their coming, whether it is hurt."""

    def of(self, head: Head) -> Fault | None:
        """Return what happens to a request, or None; asked once for each. It says which of those that count this is."""


class Schedule:
    """Named faults, each of which counts the requests for itself."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)
        self._seen = [0] * len(self._faults)

    def of(self, head: Head) -> Fault | None:
        """Return the first that is due."""
        due: Fault | None = None
        for k, fault in enumerate(self._faults):
            if fault.counts(head):
                self._seen[k] += 1
                if due is None and fault.nth <= self._seen[k] < fault.nth + fault.times:
                    due = replace(fault, nth=self._seen[k], times=1)
        return due


class Drawn:
    """Faults drawn with a seed; what was drawn is on the tape as named faults.

    Parameters
    ----------
    seed : of the draws
    chance : that a request is hurt
    menu : what is drawn from: the key of the request is that of the fault
    """

    def __init__(self, seed: int, chance: float, menu: Sequence[Fault]) -> None:
        self._random, self._chance, self._menu = random.Random(seed), chance, list(menu)
        self._seen: Counter[tuple[Api, str]] = Counter()

    def of(self, head: Head) -> Fault | None:
        """Draw."""
        among = [fault for fault in self._menu if fault.counts(head)]
        self._seen.update({(fault.api, fault.having) for fault in among})
        if not among or self._random.random() >= self._chance:
            return None
        fault = self._random.choice(among)
        return replace(fault, nth=self._seen[fault.api, fault.having], times=1)


def from_tape(text: str) -> Schedule:
    """Return the faults that a tape says were done, to be done again to the same requests."""
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    return Schedule(Fault.of(line["fault"]) for line in lines if line["what"] == "hurt")

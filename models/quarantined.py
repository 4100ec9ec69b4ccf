"""Records in quarantine: which one is which, what stands of each, what a person reads of it and may do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from schemas.reasons import QUARANTINE_MEANING, QUARANTINE_REMEDY, QuarantineReason
from schemas.records import Quarantined
from schemas.topics import TOPICS, Topic

#: field, what was expected, what was there: as the readers of topics write it, and as the decoder does
_said = re.compile(r"^(?P<field>\w[\w.\[\]]*): (?P<expected>.*?)(?:, was (?P<was>.*))?$", re.DOTALL)
_decoder = re.compile(
    r"^(?P<expected>.*?) - at `\$\.?(?P<field>[^`]*)`(?P<more>, expected .*?)?(?:, was (?P<was>.*))?$", re.DOTALL)
_missing = re.compile(r"^(?P<expected>Object missing required field `(?P<field>\w+)`)(?P<was>)")
_REASONS = frozenset(map(str, QuarantineReason))
BY_NAME = {t.name: t for t in TOPICS}


class Retry(NamedTuple):
    """Whether records of a topic may be brought back, and what happens to one that is."""

    allowed: bool
    effect: str


#: what is not here is an output: the stage that writes it writes it again
RETRIES = {
    "trades": Retry(True, "applied once: the same account and trade_id that was applied meanwhile is a duplicate"),
    "positions.external": Retry(True, "taken as a statement of its own time; not where a newer one of its key stands"),
    "ticks": Retry(True, "late where a newer quote of its instrument has come: it changes no mark then"),
    "orders": Retry(False, "an order that was not read was never accepted: its sender sends it anew, at today's price"),
    "limits": Retry(False, "a limit is set anew (`deskrisk limits set`): who may loosen it is looked at there"),
    "controls": Retry(False, "a state is set anew (`deskrisk halt`, `resume`): what stands by now is looked at there"),
    "approvals": Retry(False, "what waited for a second person is asked for anew"),
    "touches": Retry(False, "a touch is stated anew (`deskrisk barriers set`)"),
}
_REFERENCE = Retry(True, "published again, unless a newer record of its key stands")
_OUTPUT = Retry(False, "an output: the stage that wrote it writes it again from what it read")


def retry_of(topic: str) -> Retry:
    """Return what bringing back a record of a topic does, by the topic's name in the contract."""
    known = BY_NAME.get(topic)
    return RETRIES.get(topic) or (_REFERENCE if known is not None and known.direction == "in" else _OUTPUT)


def id_of(record: Quarantined) -> str:
    """Return which record it is: topic-partition-offset, and .index of one in an array."""
    return f"{record.topic}-{record.partition}-{record.offset}" + (f".{record.index}" if record.index else "")


def state_of(record: Quarantined) -> str:
    """Return how it stands: it waits, was brought back, or was brought back before and refused again."""
    if record.retried_ts is not None:
        return "retried"
    return "again" if record.retry_of is not None else "waits"


class QuarantineLog:
    """The newest record of each that was not applied; bounded, the oldest go first, counts go on.

    Parameters
    ----------
    kept : so many records are kept whole
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.records: dict[str, Quarantined] = {}
        #: not brought back, by topic and reason; of those that are kept no more too
        self.counts: Counter[tuple[str, str]] = Counter()

    def take(self, record: Quarantined) -> None:
        """Take a record in: a new one, or that it was brought back."""
        name, key = id_of(record), (record.topic, record.reason)
        held, waits = self.records.get(name), record.retried_ts is None
        if held is not None and held.retried_ts is not None and waits:
            return  # read again where it stood: it was brought back since
        if waits and held is None:
            self.counts[key] += 1
        elif not waits and (held is None or held.retried_ts is None) and self.counts[key]:
            self.counts[key] -= 1  # one that is kept no more was counted when it came
        self.records.pop(name, None)
        self.records[name] = record
        while len(self.records) > self._kept:
            self.records.pop(next(iter(self.records)))

    def summary(self) -> list[dict[str, Any]]:
        """Return how many wait, by topic and reason, most first."""
        return [{"topic": topic, "reason": reason, "count": n, "meaning": meaning_of(reason)}
                for (topic, reason), n in sorted(self.counts.items(), key=lambda x: (-x[1], x[0])) if n > 0]

    def chosen(self, topic: str | None = None, reason: str | None = None, since_ns: int = 0) -> list[Quarantined]:
        """Return records, the newest last."""
        return chosen(self.records.values(), topic, reason, since_ns)


def chosen(records: Iterable[Quarantined], topic: str | None, reason: str | None, since_ns: int) -> list[Quarantined]:
    """Return records of a topic and a reason, where given, that came at or after a time."""
    return [r for r in records if topic in (None, r.topic) and reason in (None, r.reason) and r.ts >= since_ns]


def meaning_of(reason: str) -> str:
    """Return what a reason means."""
    return QUARANTINE_MEANING[QuarantineReason(reason)] if reason in _REASONS else "a reason of another version"


def explained(record: Quarantined, name: str) -> dict[str, Any]:
    """Return what a person wants to know of a record; ``name``: of its topic in the contract."""
    found = _missing.match(record.detail) or _decoder.match(record.detail) or _said.match(record.detail)
    said = found.groupdict() if found else {"field": None, "expected": record.detail, "was": None}
    remedy = QUARANTINE_REMEDY[QuarantineReason(record.reason)] if record.reason in _REASONS else "look at the detail"
    retry = retry_of(name)
    return {"id": id_of(record), "state": state_of(record), "topic": record.topic, "partition": record.partition,
            "offset": record.offset, "index": record.index, "ts": record.ts, "reason": record.reason,
            "meaning": meaning_of(record.reason), "field": said["field"] or None, "value": said["was"] or None,
            "expected": (said["expected"] or "") + (said.get("more") or ""), "detail": record.detail,
            "what_to_do": remedy, "may_be_retried": retry.allowed, "a_retry": retry.effect,
            "retry_of": record.retry_of, "retried_by": record.retried_by, "retried_why": record.retried_why,
            "retried_ts": record.retried_ts, "retried_as": record.retried_as}


def key_field(topic: Topic) -> str | None:
    """Return the field of a record that is its key, where one field is."""
    return topic.key if topic.key.isidentifier() else None

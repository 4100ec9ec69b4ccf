"""R12, R3 and R8 at the topic of limits: records written without the commands, by one person, before and after compaction."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.limit_alerts import LimitAlerts
from agents.router import Place, Router
from app.control import Refused as NotWritten
from app.control import limit_to_remove, new_limit, next_version, withdrawal
from app.gateway.server import Gateway
from app.settings import Settings
from models.limit_door import LimitDoor, judged
from models.limits import ORPHANS_MAX, LimitMonitor, key_of
from models.limits_in_force import by_two
from models.trading_states import replaces
from schemas.codec import decoder_of, encode
from schemas.reasons import QuarantineReason
from schemas.records import Alert, Control, Limit
from schemas.refusal import Refused
from schemas.units import format_ts_ns
from tests.property.test_two_people import MIN, NAMES, PAIRS, REASON, T0, WRITE, refuses
from tests.unit.test_gate_figures import limit as measured_limit

TOPICS = {"alerts": "alerts", "controls": "controls", "limits": "limits", "quarantine": "quarantine"}


class Log:
    """The topics of limits and controls: what a reader finds there, and what it writes."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes | None, int]] = []
        self.alerts: list[Alert] = []

    def send(self, topic: str, key: bytes, value: bytes | None, *_: Any, **__: Any) -> None:
        if topic == "alerts":
            self.alerts.append(decoder_of(Alert).decode(value or b""))
        else:
            self.records.append((topic, key.decode(), value, self.records[-1][3] if self.records else T0))

    def add(self, *_: Any, **__: Any) -> None: ...

    def set(self, *_: Any, **__: Any) -> None: ...

    def compacted(self) -> list[tuple[str, str, bytes | None, int]]:
        newest = {(r[0], r[1]): k for k, r in enumerate(self.records)}
        return [r for k, r in enumerate(self.records) if newest[r[0], r[1]] == k]


class Reader:
    """A stage that follows the rules, as the gate and the risk stage do."""

    def __init__(self, log: Log) -> None:
        self.log, self.read = log, 0
        self.alerts = LimitAlerts(TOPICS, log, log, lambda node, metric: True)  # type: ignore[arg-type]
        self.refused: list[str] = []
        self.router = Router({t: t for t in TOPICS}, log, "refused", self.put_aside)
        monitor = self.alerts.monitor
        self.router.subscribe("limits", Limit, *self.alerts.judged(lambda x, _: monitor.add(x), lambda place: monitor.remove(place.key)))
        self.router.subscribe("controls", Control, lambda x, place: self.alerts.take_control(x, place.key))

    def put_aside(self, batch: Any, k: int, reason: QuarantineReason, detail: str, raw: bytes) -> None:
        self.refused.append(reason)
        self.alerts.refused(batch.topic, batch.keys[k].decode(), reason, detail)

    def follow(self, records: list[tuple[str, str, bytes | None, int]]) -> None:
        for topic, key, value, ts in records[self.read:]:
            self.router(SimpleNamespace(topic=topic, partition=0, keys=[key.encode()], values=[value], offsets=np.array([self.read]),  # type: ignore[arg-type]
                                        timestamps_ms=np.array([ts // 1_000_000])))
            self.read += 1


RAW = st.one_of(
    st.tuples(WRITE, st.sampled_from([None, "ann", " ANN ", "", "  "]), st.booleans()), NAMES.map(lambda name: {"gone": name}),
    NAMES.map(lambda name: {"broken": name}), st.sampled_from([2 * MIN, 700 * MIN]))


def written(step: Any, standing: dict[str, Limit], place: dict[str, Any], now: int) -> tuple[str, bytes | None]:
    """Return key and value of a record that one person sends straight to the topic."""
    if "gone" in step:
        return step["gone"], None
    if "broken" in step:
        return step["broken"], b'{"limit_id":"' + step["broken"].encode() + b'","limit":"a lot"}'
    fields, approved, same = step
    fields = {"reason": REASON, "node": "desk:D", "metric": "gross", "limit": 1e12} | fields | (place if same else {})
    fields = {k: v for k, v in fields.items() if v is not None}
    limit = next_version(standing.get(fields["limit_id"]), fields, "ann", now)
    return fields["limit_id"], encode(msgspec.structs.replace(limit, limit_id=fields["limit_id"], approved_by=approved))


@settings(max_examples=60, deadline=None)
@given(pair=PAIRS, steps=st.lists(RAW, min_size=1, max_size=5))
def test_no_records_of_one_person_on_the_topic_let_an_order_pass_and_compaction_changes_nothing(pair: tuple[str, str, float, dict[str, Any]], steps: list[Any]) -> None:
    node, metric, value, more = pair
    place = {"node": node, "metric": metric} | more
    price, now, log = 102.0 if metric.startswith("collar") else 100.0, T0, Log()
    first = new_limit({}, {"limit_id": "L1", "limit": value, "reason": REASON, "approved_by": "bob", **place}, "ann", T0)
    log.records.append(("limits", "L1", encode(first), T0))
    early = Reader(log)
    for step in steps:
        if isinstance(step, int):
            now += step
            continue
        try:
            key, raw = written(step, early.alerts.door.standing, place, now)
        except NotWritten:  # a limit that cannot be on what it names
            continue
        log.records.append(("limits", key, raw, now))
        early.follow(log.records)
        assert refuses(dict(early.alerts.door.standing), now, price)
    for _ in range(3):
        early.alerts.settle(now)
        early.follow(log.records)
    late = Reader(log)
    late.follow(log.compacted())
    assert late.alerts.door.standing == early.alerts.door.standing and set(late.refused) <= {QuarantineReason.BAD_FIELD}
    assert late.alerts.monitor.state_hash() == early.alerts.monitor.state_hash()
    assert refuses(dict(late.alerts.door.standing), now, price)
    records = [(k, None if v is None else decoder_of(Limit).decode(v), ts) for _, k, v, ts in log.compacted() if not v or b"a lot" not in v]
    assert judged(records) == late.alerts.door.standing, "a command finds what stages have"


def test_a_loosening_by_one_is_put_aside_and_told_and_by_two_it_stands() -> None:
    log = Log()
    two = new_limit({}, {"limit_id": "L1", "node": "desk:D", "metric": "gross", "limit": 10_000, "reason": REASON, "approved_by": "bob"}, "ann", T0)
    reader, late = Reader(log), Reader(log)
    for version, approved, by in ((1, "bob", "ann"), (2, None, "ann"), (3, "eve", "eve")):
        log.records.append(("limits", "L1", encode(msgspec.structs.replace(two, version=version, limit=Decimal(10_000 * version), approved_by=approved, by=by)), T0))
    log.records.append(("limits", "L1", None, T0))
    reader.follow(log.records)
    assert reader.refused == [QuarantineReason.NOT_APPROVED] * 3 and reader.alerts.door.standing["L1"].limit == 10_000
    reader.alerts.settle(T0)
    (alert,) = log.alerts
    assert alert.node == "desk:D" and "two people set L1" in str(alert.note) and log.records[-1][:3] == ("limits", "L1", encode(two))
    reader.alerts.settle(T0)
    reader.follow(log.records)
    reader.alerts.settle(T0)
    assert len(log.alerts) == 1 and not reader.alerts._displaced.take(), "once"
    late.follow(log.compacted())
    assert late.alerts.door.standing == reader.alerts.door.standing == {"L1": two}
    wider = msgspec.structs.replace(two, version=5, limit=Decimal(50_000), by="eve", approved_by="ann")
    log.records += [("limits", "L1", encode(wider), T0)]
    fields = {"limit_id": "L1", "reason": REASON, "approved_by": "zoe"}
    gone = withdrawal({"L1": wider}, limit_to_remove({"L1": wider}, fields, "ann", T0), fields, "ann", T0)
    log.records += [("limits", key, None if x is None else encode(x), T0) for key, x in gone]
    reader.follow(log.records)
    assert reader.alerts.door.standing == {} and reader.alerts.monitor.watches == {}, "two people loosen it, and take it away"


def test_who_agreed_to_a_limit_and_lowers_it_does_not_make_it_one_persons() -> None:
    """He stood as both people of it then, which is one, and could raise it alone."""
    two = new_limit({}, {"limit_id": "L1", "node": "desk:D", "metric": "gross", "limit": 10_000, "reason": REASON, "approved_by": "bob"}, "ann", T0)
    lower = new_limit({"L1": two}, {"limit_id": "L1", "limit": 9_000, "reason": REASON}, "bob", T0)
    assert by_two(lower) and {lower.by, lower.approved_by} == {"ann", "bob"}
    with pytest.raises(NotWritten, match="expected a second person"):
        new_limit({"L1": lower}, {"limit_id": "L1", "limit": 1e12, "reason": REASON}, "bob", T0)
    assert not by_two(msgspec.structs.replace(two, approved_by=" "))


def test_a_write_that_rests_on_another_version_is_told() -> None:
    held = new_limit({}, {"limit_id": "L1", "node": "desk:D", "metric": "gross", "limit": 10_000, "reason": REASON}, "ann", T0)
    assert new_limit({"L1": held}, {"limit_id": "L1", "limit": 1, "reason": REASON, "version": 1}, "bob", T0).version == 2
    for wrong in (0, 2, "1"):
        with pytest.raises(NotWritten, match=r"version: expected 1, was .* changed the limit meanwhile"):
            new_limit({"L1": held}, {"limit_id": "L1", "limit": 1, "reason": REASON, "version": wrong}, "bob", T0)


def test_a_client_that_sends_one_version_again_and_again_is_told_once_a_minute_and_displaces_nothing() -> None:
    log = Log()
    reader, x = Reader(log), Limit(limit_id="L1", node="desk:D", metric="gross", limit=Decimal(5), version=1, by="ann", reason=REASON)
    for k in range(130):  # one a second
        log.records.append(("limits", "L1", encode(msgspec.structs.replace(x, limit=Decimal(5 + k))), T0))
        reader.follow(log.records)
        reader.alerts.settle(T0 + k * 10**9)
        reader.follow(log.records)
        assert reader.alerts.door.standing == {"L1": x} and log.compacted()[-1][2] == encode(x)
    assert len(log.alerts) == 3 and {a.limit_id for a in log.alerts} == {"refused.limits.L1"}, "one line on the page"
    assert len(reader.refused) == 129


STATES = st.lists(st.tuples(st.sampled_from(["active", "reducing", "halted", "killed"]), st.integers(1, 3), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(STATES)
def test_of_states_that_raced_the_same_stands_for_who_read_all_and_for_who_starts_after_compaction(states: list[tuple[Any, int, bool]]) -> None:
    """A breaker's `reducing` of the number of a person's `halted`, a resume of before it: none of them is what compaction leaves."""
    log = Log()
    early, late = Reader(log), Reader(log)
    for k, (state, rev, readable) in enumerate(states):
        control = Control(scope="desk:D", state=state, reason=REASON, by=f"p{k}", ts=T0, rev=rev)
        log.records.append(("controls", "desk:D", encode(control) if readable else b"{}", T0))
    early.follow(log.records)
    for _ in range(3):
        early.alerts.settle(T0)
        early.follow(log.records)
    late.follow(log.compacted())
    assert late.alerts.states.standing == early.alerts.states.standing or not early.alerts.states.standing
    held: Control | None = None
    for _, _, value, _ in log.records:
        if value != b"{}":
            found = decoder_of(Control).decode(value or b"")
            held = found if replaces(found, held) else held
    assert early.alerts.states.standing.get("desk:D") == held


@pytest.mark.parametrize("name", ["unknown.L1", "feed.prices fx", "recon.A"])
def test_no_limit_has_a_name_that_alerts_use(name: str) -> None:
    raw = encode(measured_limit("desk:D", "gross", 1, limit_id="x")).replace(b'"limit_id":"x"', f'"limit_id":"{name}"'.encode())
    with pytest.raises(msgspec.ValidationError, match="begins with none of unknown"):
        decoder_of(Limit).decode(raw)


def test_what_limits_leave_behind_does_not_grow() -> None:
    """R18: names that came and went, and alerts of others' limits."""
    monitor = LimitMonitor()
    for k in range(200):
        x = measured_limit(f"desk:D{k}", "gross", 1, limit_id=f"L{k}")
        monitor.add(x)
        monitor.measure({key_of(x): 2.0}, T0 + k, T0 + k)
        monitor.remove(x.limit_id)
    assert not monitor._by_key and not monitor.standing and len(monitor.clear_removed(lambda node: True, T0)) == 200
    for k in range(ORPHANS_MAX + 50):
        monitor.follow(Alert(alert_id=f"a{k}", kind="breach", node=f"desk:D{k}", metric="gross", value=2.0, limit=1.0, utilisation=2.0, cause_ts=k, raised_ts=k, snapshot_id=1, limit_id=f"L{k}"))
    assert len(monitor._orphans) == ORPHANS_MAX and f"L{ORPHANS_MAX + 49}" in monitor._orphans


def test_the_gateway_judges_as_the_stages_do() -> None:
    gateway = Gateway(Settings(brokers="localhost:1"))
    two = new_limit({}, {"limit_id": "L1", "node": "desk:D", "metric": "gross", "limit": 10_000, "reason": REASON, "approved_by": "bob"}, "ann", T0)
    place = Place("limits", 0, 0, "L1", ts_ns=time.time_ns())
    assert gateway._router.hand_on(encode(two), place) is None
    alone = encode(msgspec.structs.replace(two, version=2, limit=Decimal(10**9), approved_by=None))
    assert gateway._router.hand_on(alone, place) is not None and gateway._router.hand_on(None, place) is not None
    assert gateway.state.limits == {"L1": two}


@pytest.mark.parametrize(("fields", "says"), [
    ({"metric": "grosss"}, r"metric: .*gross\?"), ({"by": "  "}, "by"), ({"reason": ""}, "reason"), ({"warn": 0}, "warn"),
    ({"warn": 9}, "warn"), ({"version": 2**70}, "version")])
def test_a_record_on_limits_that_nobody_could_hold_leaves_what_stands(fields: dict[str, Any], says: str) -> None:
    good = {"limit_id": "L", "node": "desk:D", "metric": "gross", "limit": "1000", "version": 1, "by": "ann", "reason": "of the desk"}
    door = LimitDoor()
    door.take(decoder_of(Limit).decode(json.dumps(good).encode()), 1)
    with pytest.raises(ValueError, match=says):
        door.take(decoder_of(Limit).decode(json.dumps(good | {"version": 2, "limit": "9000"} | fields).encode()), 2)
    assert [x.limit for x in door.standing.values()] == [1000]


def test_a_temporary_limit_of_one_person_is_beside_the_lasting_ones_never_in_their_place() -> None:
    lasting = Limit(limit_id="L", node="desk:D", metric="gross", limit=Decimal(1000), version=1, by="ann", reason="of the desk")
    wider = msgspec.structs.replace(lasting, limit_id="L~temporary", limit=Decimal(2000), until="2026-11-30T00:00:00Z")
    door = LimitDoor()
    door.take(lasting, T0)
    with pytest.raises(Refused, match="two people"):
        door.take(wider, T0)
    door.take(msgspec.structs.replace(wider, limit=Decimal(500)), T0)
    door.take(msgspec.structs.replace(wider, limit=Decimal(3000), version=2, approved_by="bob"), T0)
    assert {x.limit for x in door.standing.values()} == {1000, 3000}


VERSIONS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["100", "100.0", "200", "300"]), st.sampled_from(["hard", "soft"]), st.sampled_from([REASON, REASON + " (again)"]),
                              st.booleans()), min_size=1, max_size=7)


@settings(max_examples=80, deadline=None)
@given(VERSIONS, st.integers(0, 6), st.booleans())
def test_a_version_says_one_thing_whoever_reads_it_and_when(steps: list[Any], cut: int, ends: bool) -> None:
    """A version that comes again with another content, or after a later one, is refused: what stood stands, for every reader, after compaction too."""
    log, now, expected = Log(), T0 // 1_000_000 * 1_000_000, None
    for version, value, mode, reason, as_text in steps:
        until = None if not ends else format_ts_ns(T0 + 10 * MIN) if as_text else T0 + 10 * MIN  # of one time, in two ways
        x = Limit(limit_id="L1", node="desk:D", metric="gross", limit=Decimal(value), version=version, by="ann", reason=reason, mode=mode, until=until)
        log.records.append(("limits", "L1", encode(x), now))
        if expected is None or version > expected.version:
            expected = x
    early, gateway = Reader(log), Gateway(Settings(brokers="localhost:1"))
    early.follow(log.records[:cut])
    for _ in range(2):  # the stage that settles is sometimes there while records come, sometimes later
        early.alerts.settle(now)
        early.follow(log.records)
    for _ in range(3):
        early.alerts.settle(now)
        early.follow(log.records)
    late, restarted = Reader(log), Reader(log)
    late.follow(log.compacted())
    restarted.follow(log.records)
    of_commands = judged([("L1", decoder_of(Limit).decode(v or b""), ts) for _, _, v, ts in log.records])
    for _, key, value, ts in log.records:
        gateway._router.hand_on(value, Place("limits", 0, 0, key, ts_ns=ts))
    assert expected is not None
    for found in (early.alerts.door.standing, late.alerts.door.standing, restarted.alerts.door.standing, of_commands, gateway.state.limits):
        assert found["L1"].limit == expected.limit and (found["L1"].version, found["L1"].mode, found["L1"].reason) == (expected.version, expected.mode, expected.reason)
    assert early.alerts.monitor.watches["L1"].limit == restarted.alerts.monitor.watches["L1"].limit == early.alerts.door.standing["L1"]
    said = [(version, Decimal(value), mode, reason) for version, value, mode, reason, _ in steps]
    others = any(earlier[0] >= one[0] and earlier != one for k, one in enumerate(said) for earlier in said[:k])
    assert bool(early.refused) == others and set(early.refused) <= {QuarantineReason.STALE_VERSION}
    assert not early.alerts._displaced.take() and bool(log.alerts) == (len(log.records) > len(steps)), "what is written once more is said"

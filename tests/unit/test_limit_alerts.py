"""Alerts of limits and what they trip: through time, restarts, hand-overs, people; what the gate watches itself."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents.gate_watch import GateWatch
from agents.limit_alerts import LimitAlerts
from models.gate.book import GateBook
from models.gate.flow import ORDERS_MIN, OrderFlow, Outcomes, figure
from models.gate.held_limits import check_limit
from models.limits import LimitKey, LimitMonitor
from schemas.codec import decoder_of, encode
from schemas.records import Alert, Control, Decision, Limit
from tests.unit.test_gate_book import T0, codes, gate, order
from tests.unit.test_gate_figures import held, limit
from tests.unit.test_other_gates import Topic

_ = gate
S = 1_000_000_000
FAR = "2099-01-01T00:00:00+00:00"


class Log:
    """The topics of alerts and controls, and what was counted."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def send(self, topic: str, key: bytes, value: bytes, *_: Any, **__: Any) -> None:
        self.sent.append((topic, decoder_of({"alerts": Alert, "controls": Control}[topic]).decode(value)))

    def add(self, *_: Any, **__: Any) -> None: ...

    def set(self, *_: Any, **__: Any) -> None: ...

    def take(self) -> list[tuple[Any, ...]]:
        found, self.sent = self.sent, []
        return [(x.kind, x.node, x.metric) if topic == "alerts" else (x.scope, x.state) for topic, x in found]

    def alerts(self) -> list[Alert]:
        return [x for topic, x in self.sent if topic == "alerts"]


TOPICS = {"alerts": "alerts", "controls": "controls"}


def stage(*limits: Limit, log: Log | None = None) -> tuple[LimitAlerts, Log]:
    log = log or Log()
    alerts = LimitAlerts(TOPICS, log, log, lambda node, metric: True)  # type: ignore[arg-type]
    for x in limits:
        alerts.monitor.add(x)
    return alerts, log


def at(alerts: LimitAlerts, node: str, metric: str, value: float, seconds: float, window_ms: int = 0) -> None:
    now = T0 + int(seconds * S)
    alerts.measured({LimitKey(node, metric, window_ms): value}, now, now, lambda node: True)


def replayed(log: list[Alert]) -> Any:
    return SimpleNamespace(values=[encode(a) for a in log], partition=0)


# ---- through time -----------------------------------------------------------------------------------------------------
def test_alerts_have_hysteresis_escalate_and_trip() -> None:
    monitor = LimitMonitor()
    monitor.add(limit("desk:D", "loss_day", 100, action="halt"))

    def value(v: float, seconds: float) -> list[tuple[str, str | None, bool]]:
        found = monitor.measure({LimitKey("desk:D", "loss_day"): v}, T0 + int(seconds * 1e9), T0 + int(seconds * 1e9))
        return [(c.alert.kind, c.control, c.alert.escalated) for c in found]

    assert value(70, 0) == []
    assert value(80, 1) == [("approach", None, False)] and value(78, 2) == [] and value(100, 3) == []
    assert value(100.1, 4) == [("breach", "halted", False)] and value(98, 5) == []
    assert value(98, 65) == [("breach", None, True)] and value(98, 130) == []  # nobody acknowledged it: once more, once
    assert value(96, 131) == [("clear", None, False)] and value(76, 132) == [("clear", None, False)]
    assert value(101, 133) == [("breach", "halted", False)]  # it trips again


def test_an_acknowledged_breach_is_not_escalated() -> None:
    monitor = LimitMonitor()
    monitor.add(limit("firm", "net", 100))
    key = LimitKey("firm", "net")
    (change,) = monitor.measure({key: -150.0}, T0, T0)
    assert change.alert.kind == "breach" and change.alert.utilisation == 1.5
    monitor.follow(msgspec.structs.replace(change.alert, ack_by="risk-1"))
    assert monitor.measure({key: -150.0}, T0 + 10**12, T0) == []
    assert monitor.measure({key: 1.0}, T0, T0, {key: "partial"}) == []  # what leaves positions out clears nothing
    assert monitor.measure({}, T0 + 10**12, T0) == []  # unknown changes no state


def test_a_limit_of_nothing_is_breached_by_anything() -> None:
    alerts, log = stage(limit("fund:F", "gross", 0, action="halt"))
    at(alerts, "fund:F", "gross", 0.0, 0)
    assert log.take() == []
    at(alerts, "fund:F", "gross", 0.01, 1)
    (alert,) = log.alerts()
    assert log.take() == [("breach", "fund:F", "gross"), ("fund:F", "halted")] and alert.utilisation is None


def test_a_temporary_limit_holds_alone_and_in_the_place_of_a_lasting_one() -> None:
    until = msgspec.structs.replace(limit("fund:F", "gross", 200, limit_id="L~override"), until=FAR, approved_by="risk-2")
    alerts, log = stage(limit("fund:F", "gross", 100, limit_id="L"))
    at(alerts, "fund:F", "gross", 150, 0)
    assert log.take() == [("breach", "fund:F", "gross")]
    alerts.monitor.add(until)
    at(alerts, "fund:F", "gross", 150, 1)
    (alert,) = log.alerts()
    assert log.take() == [("clear", "fund:F", "gross")] and (alert.limit_id, alert.limit) == ("L", 200.0)
    alerts.monitor.remove("L")  # the temporary one goes on alone
    at(alerts, "fund:F", "gross", 250, 2)
    assert log.take() == [("breach", "fund:F", "gross")]
    alerts.monitor.add(msgspec.structs.replace(until, until="2026-10-01T00:00:00+00:00", version=2))
    at(alerts, "fund:F", "gross", 250, 3)
    assert log.take() == [("clear", "fund:F", "gross")], "what has ended limits nothing"


def test_a_temporary_limit_of_one_person_or_of_the_other_mode_is_held_beside_the_lasting_one() -> None:
    """Decision 0065: the monitor reads as the gate does; it took any temporary limit in the place of lasting ones."""
    for more in ({"approved_by": None}, {"approved_by": " R "}, {"approved_by": "risk-2", "mode": "soft"}):
        beside = msgspec.structs.replace(limit("fund:F", "gross", 200, limit_id="L~temporary"), until=FAR, by="r", **more)
        alerts, log = stage(limit("fund:F", "gross", 100, limit_id="L"), beside)
        at(alerts, "fund:F", "gross", 150, 0)
        assert [(a.limit_id, a.kind, a.limit) for a in log.alerts()] == [("L", "breach", 100.0)]
        log.take()
        at(alerts, "fund:F", "gross", 250, 1)
        assert [(a.limit_id, a.kind, a.limit) for a in log.alerts()] == [("L~temporary", "breach", 200.0)]


def test_what_stands_of_a_limit_that_is_taken_away_or_moved_is_cleared() -> None:
    alerts, log = stage(limit("fund:F", "gross", 100, limit_id="L"))
    at(alerts, "fund:F", "gross", 150, 0)
    (raised,) = log.alerts()
    log.take()
    alerts.monitor.add(limit("fund:G", "gross", 100, limit_id="L", version=2))
    at(alerts, "fund:G", "gross", 50, 1)
    (alert,) = log.alerts()
    assert log.take() == [("clear", "fund:F", "gross")] and alert.limit_id == "L"
    assert alert.alert_id != raised.alert_id
    at(alerts, "fund:G", "gross", 150, 2)
    alerts.monitor.remove("L")
    log.take()
    at(alerts, "fund:G", "gross", 150, 3)
    assert log.take() == [("clear", "fund:G", "gross")]
    at(alerts, "fund:G", "gross", 150, 4)
    assert log.take() == []


def test_what_is_counted_in_a_window_clears_after_all_of_one_below() -> None:
    rate = limit("account:A", "message_count", 10, window_ms=2_000)
    alerts, log = stage(rate)
    for seconds, count in enumerate([9, 3, 9, 3]):
        at(alerts, "account:A", "message_count", count, seconds, 2_000)
    assert log.take() == [("approach", "account:A", "message_count")], "it comes and goes with every second"
    at(alerts, "account:A", "message_count", 3, 4, 2_000)
    assert log.take() == [("clear", "account:A", "message_count")]


# ---- restarts, hand-overs, people ------------------------------------------------------------------------------------
def test_a_restart_raises_nothing_anew_and_keeps_what_a_person_has_seen() -> None:
    rule = limit("desk:D", "loss_day", 100)
    alerts, log = stage(rule)
    at(alerts, "desk:D", "loss_day", 120, 0)
    (alert,) = log.alerts()
    seen = msgspec.structs.replace(alert, ack_by="risk-1", note="known")
    for before in (False, True):  # the log of alerts may be read before, or after the limits
        again, later = stage(*([] if before else [rule]))
        again.on_alerts(replayed([alert, seen]))
        if before:
            again.monitor.add(rule)
        at(again, "desk:D", "loss_day", 120, 5)
        at(again, "desk:D", "loss_day", 120, 500)
        assert later.take() == []
        at(again, "desk:D", "loss_day", 10, 501)
        assert later.take() == [("clear", "desk:D", "loss_day")]
    again, later = stage(rule)
    again.on_alerts(replayed([alert]))
    at(again, "desk:D", "loss_day", 120, 61)
    (escalated,) = later.alerts()
    assert escalated.escalated and escalated.alert_id == alert.alert_id


def test_a_late_record_of_the_own_alerts_changes_nothing() -> None:
    alerts, log = stage(limit("desk:D", "loss_day", 100))
    at(alerts, "desk:D", "loss_day", 120, 0)
    at(alerts, "desk:D", "loss_day", 10, 1)
    raised = log.alerts()
    log.take()
    alerts.on_alerts(replayed(raised))
    at(alerts, "desk:D", "loss_day", 10, 2)
    assert log.take() == []


def test_a_record_that_is_no_alert_costs_its_neighbours_nothing() -> None:
    rule = limit("desk:D", "loss_day", 100)
    alerts, log = stage(rule)
    at(alerts, "desk:D", "loss_day", 120, 0)
    again, later = stage(rule)
    again.on_alerts(SimpleNamespace(values=[b'{"limit_id":"x"', b'{"limit_id":"x","kind":7}', None, encode(log.alerts()[0])], partition=0))  # type: ignore[arg-type]
    at(again, "desk:D", "loss_day", 120, 1)
    assert later.take() == []


def test_a_control_of_before_the_trip_lifts_nothing() -> None:
    alerts, log = stage(limit("desk:D", "loss_day", 100, action="halt"))
    resumed = Control(scope="desk:D", state="active", reason="of yesterday", by="risk-1", ts=T0 - S, rev=4)
    alerts.take_control(resumed)
    at(alerts, "desk:D", "loss_day", 120, 0)
    assert log.take() == [("breach", "desk:D", "loss_day"), ("desk:D", "halted")]
    alerts.take_control(resumed)
    at(alerts, "desk:D", "loss_day", 120, 1)
    assert log.take() == []


def test_a_kill_between_a_breach_and_its_breaker_trips_it_after_the_restart() -> None:
    rule = limit("desk:D", "loss_day", 100, action="halt")
    alerts, log = stage(rule)
    at(alerts, "desk:D", "loss_day", 120, 0)
    (alert,) = log.alerts()
    tripped = next(x for topic, x in log.sent if topic == "controls")
    again, later = stage(rule)
    again.on_alerts(replayed([alert]))
    at(again, "desk:D", "loss_day", 120, 1)
    assert later.take() == [("breach", "desk:D", "loss_day"), ("desk:D", "halted")]
    whole, later = stage(rule)
    whole.take_control(tripped)
    whole.on_alerts(replayed([alert]))
    at(whole, "desk:D", "loss_day", 120, 1)
    assert later.take() == [], "it stands"


def test_a_person_lifts_a_breaker_and_what_is_still_breached_trips_it_again() -> None:
    alerts, log = stage(limit("desk:D", "loss_day", 100, action="halt"), limit("firm", "loss_day", 500, action="reduce"))
    at(alerts, "desk:D", "loss_day", 120, 0)
    assert log.take() == [("breach", "desk:D", "loss_day"), ("desk:D", "halted")]
    lifted = Control(scope="desk:D", state="active", reason="looked at it", by="risk-1", ts=T0 + S, rev=2)
    alerts.take_control(lifted)
    at(alerts, "desk:D", "loss_day", 120, 2)
    (_, again), (_, control) = log.sent
    assert log.take() == [("breach", "desk:D", "loss_day"), ("desk:D", "halted")] and control.rev == 3 and not again.escalated
    at(alerts, "desk:D", "loss_day", 120, 3)
    assert log.take() == []
    alerts.monitor.add(limit("desk:D", "loss_day", 200, action="halt", version=2))  # who may, raises the limit
    alerts.take_control(msgspec.structs.replace(lifted, rev=4))
    at(alerts, "desk:D", "loss_day", 120, 4)
    assert log.take() == [("clear", "desk:D", "loss_day")]
    at(alerts, "firm", "loss_day", 501, 5)
    alerts.take_control(Control(scope="all", state="active", reason="looked at it", by="risk-1", ts=T0 + S, rev=2))
    log.take()
    at(alerts, "firm", "loss_day", 501, 6)
    assert log.take() == [("breach", "firm", "loss_day"), ("all", "reducing")]


# ---- what the gate watches -------------------------------------------------------------------------------------------
def watch(g: GateBook, *limits: Limit) -> tuple[GateWatch, Log]:
    log = Log()
    found = GateWatch(g, TOPICS, log, log, 1, lambda p: True)  # type: ignore[arg-type]
    for x in limits:
        g.add_limit(x)
        found.add(x)
    return found, log


def decided(w: GateWatch, g: GateBook, o: Any, ts: int = T0) -> Decision:
    v = g.decide(o, ts)
    d = Decision(order_id=o.order_id, account=o.account, instrument=o.instrument, outcome=v.outcome, reasons=v.reasons, warnings=v.warnings,  # type: ignore[arg-type]
                 effect={}, snapshot_id=0, limits_version=1, ts_event=ts, ts_decision=ts, service_ns=1, order=o, inputs=v.inputs)
    w.recorded(d)
    return d


def test_messages_beyond_a_rate_are_refused_then_the_session_is_halted(gate: GateBook) -> None:
    w, log = watch(gate, limit("account:A", "message_count", 10, window_ms=1_000), limit("trader:t", "message_count", 12, window_ms=5_000, action="halt"))
    outcomes = [decided(w, gate, order(str(k), quantity=1 + k % 5, price=90 - k), T0 + k * 20_000_000).outcome for k in range(13)]
    assert outcomes == ["accept"] * 10 + ["reject"] * 3
    w.look(T0 + 13 * 20_000_000)
    assert set(log.take()) == {("breach", "account:A", "message_count"), ("breach", "trader:t", "message_count"), ("trader:t", "halted")}


def test_limits_of_the_day_and_of_positions_are_approached_and_breached(gate: GateBook) -> None:
    w, log = watch(gate, limit("desk:D", "daily_quantity", 100), limit("account:A", "position_long", 100, instrument="X", limit_id="P"),
                   limit("account:A", "position_short", 100, instrument="X", limit_id="N"), limit("venue:V", "credit", 10_000, warn=0.5))
    decided(w, gate, order("1", quantity=60, price=99, venue="V"))
    w.look(T0)
    assert log.take() == [("approach", "venue:V", "credit")]
    decided(w, gate, order("2", quantity=25, price=98))
    w.look(T0 + S)
    assert set(log.take()) == {("approach", "desk:D", "daily_quantity"), ("approach", "account:A", "position_long")}
    lower = limit("account:A", "position_long", 50, instrument="X", limit_id="P", version=2)
    gate.add_limit(lower)
    w.add(lower)
    w.look(T0 + 2 * S)
    assert log.take() == [("breach", "account:A", "position_long")]
    for k in ("1", "2"):
        gate.release(k)
    w.look(T0 + 3 * S)
    assert set(log.take()) == {("clear", "account:A", "position_long"), ("clear", "venue:V", "credit")}, "the day's sums stay"
    gate.add_positions([encode(held(-120))], 0)
    w.look(T0 + 4 * S)
    assert log.take() == [("breach", "account:A", "position_short")]


def test_refusals_are_watched_in_several_windows_of_a_node(gate: GateBook) -> None:
    w, log = watch(gate, limit("firm", "reject_count", 5, window_ms=1_000), limit("firm", "reject_count", 15, window_ms=60_000, action="reduce"),
                   limit("issuer:I", "reject_rate", 0.5), limit("account:A", "order_quantity", 1))
    for k in range(20):
        decided(w, gate, order(str(k), quantity=2 + k, price=99), T0 + k * S // 2)
    w.look(T0 + 10 * S)
    assert set(log.take()) == {("breach", "firm", "reject_count"), ("all", "reducing"), ("breach", "issuer:I", "reject_rate")}


def test_of_few_orders_a_share_says_nothing_and_what_is_older_than_a_window_neither() -> None:
    flow = OrderFlow()
    flow.watch("desk:D", 60 * S)
    for k in range(ORDERS_MIN - 1):
        flow.add(0, ["firm", "desk:D"], T0 + k, True)
    assert figure("reject_rate", flow.outcomes("desk:D", 60 * S, T0 + 100)) != figure("reject_rate", Outcomes(0, 0))
    assert str(figure("reject_rate", flow.outcomes("desk:D", 60 * S, T0 + 100))) == "nan"
    flow.add(1, ["desk:D"], T0 + 50, False)
    came = flow.outcomes("desk:D", 60 * S, T0 + 100)
    assert came == (20, 19) and figure("reject_rate", came) == 0.95 and figure("reject_count", came) == 19.0
    flow.forget({0})
    assert flow.outcomes("desk:D", 60 * S, T0 + 100) == (1, 0)
    assert flow.outcomes("desk:D", 60 * S, T0 + 61 * S) == (0, 0) == flow.outcomes("desk:E", 60 * S, T0)


def test_refusals_of_all_gates_count_and_one_gate_says_so(gate: GateBook) -> None:
    rules = (limit("firm", "reject_count", 5), limit("firm", "order_quantity", 1))
    other: GateBook = gate.__class__("USD", gate.levels)
    for record in (*gate.book.reference.instrument_records.values(), *gate.book.reference.account_records.values()):
        (other.add_account if hasattr(record, "desk") else other.add_instrument)(record)  # type: ignore[arg-type]
    topic = Topic()
    a, b = topic.join(gate, "a"), topic.join(other, "b")
    a.own({0, 1})
    b.own({2, 3})
    log = Log()
    watches = [GateWatch(g, TOPICS, log, log, 4, mine.__contains__) for g, mine in ((gate, {0, 1}), (other, {2, 3}))]  # type: ignore[arg-type]
    for w, g in zip(watches, (gate, other), strict=True):
        for x in rules:
            g.add_limit(x)
            w.add(x)
        for k in range(4):
            assert decided(w, g, order(f"{k}", quantity=2 + k)).outcome == "reject"
    topic.tick(a, b)
    for w in watches:
        w.look(T0)
    assert log.take() == [("breach", "firm", "reject_count")], "four here and four there"
    a.own({0, 1, 2, 3})
    assert gate.outcomes_of("firm", 60_000, T0) == (4, 4), "what came at the other is counted anew from the log of decisions"


def test_an_order_above_a_soft_limit_passes_and_is_told_once_a_minute(gate: GateBook) -> None:
    w, log = watch(gate, limit("desk:D", "order_quantity", 5, mode="soft"), limit("account:A", "position_long", 8, instrument="X", mode="soft", limit_id="P"))
    for k in range(3):
        assert decided(w, gate, order(str(k), quantity=6 + k, price=99), T0 + k * S).outcome == "accept"
    first, second = log.alerts()
    assert log.take() == [("soft", "desk:D", "order_quantity"), ("soft", "instrument:X", "position_long")]
    assert (first.value, first.limit, first.limit_id) == (6.0, 5.0, "desk:D.order_quantity.") and second.value == 13.0
    gate.set_price("X", 99.9, 100.1, 100.0, None, T0 + 61 * S, True)
    decided(w, gate, order("9", quantity=9, price=99), T0 + 61 * S)
    assert next(a.note for a in log.alerts()) == "order 9 accepted above a soft limit, and 2 before it"


def test_soft_collars_warn_and_what_is_usual_holds_beside_them(gate: GateBook) -> None:
    soft = limit("firm", "collar_bps", 10, mode="soft")
    gate.add_limit(soft)
    gate.add_limit(limit("firm", "collar_ticks", 0, mode="soft"))
    assert gate.decide(order("1", quantity=1, price=101), T0).warnings[0].code == "PRICE_COLLAR"
    assert codes(gate, order("0", quantity=1, price=103)) == ["PRICE_COLLAR"]  # decision 0041
    gate.add_limit(limit("instrument:X", "collar_bps", 20))
    assert codes(gate, order("2", quantity=2, price=103)) == ["PRICE_COLLAR"]


@pytest.mark.parametrize("scope", ["issuer:I", "counterparty:PB", "venue:V", "trader:t", "instrument:X"])
def test_what_a_breach_stops_is_stopped_and_a_kill_cancels_what_works_there(gate: GateBook, scope: str) -> None:
    o = order("1", quantity=1, price=99, venue="V", counterparty="PB")
    assert codes(gate, o) == []
    assert gate.add_control(Control(scope=scope, state="halted", reason="limit", by="deskrisk", ts=T0, rev=1)) == []
    assert codes(gate, order("2", quantity=2, price=98, venue="V", counterparty="PB")) == ["HALTED"]
    assert [w.order.order_id for w in gate.add_control(Control(scope=scope, state="killed", reason="limit", by="risk-1", ts=T0, rev=2))] == ["1"]
    gate.add_control(Control(scope=scope, state="active", reason="resumed", by="risk-1", ts=T0, rev=3))
    assert codes(gate, order("3", quantity=3, price=97, venue="V", counterparty="PB")) == []


def test_a_kill_cancels_what_works_on_an_account_that_came_under_its_desk_since(gate: GateBook) -> None:
    assert codes(gate, order("1", quantity=1, price=99)) == []
    gate.add_account(msgspec.structs.replace(gate.book.reference.account_records["A"], desk="NEW"))
    kill = Control(scope="desk:NEW", state="killed", reason="of the desk", by="risk-1", ts=T0, rev=1)
    assert gate.add_control(msgspec.structs.replace(kill, scope="desk:D")) == []
    assert [w.order.order_id for w in gate.add_control(kill)] == ["1"]


def test_a_limit_on_what_no_order_lies_under_is_refused() -> None:
    """Every kind of node that limits can be on stops its orders since decision 0071; what is no kind of node is refused."""
    with pytest.raises(ValueError, match="node: expected firm or one of fund"):
        check_limit(limit("dsk:EUR", "gross", 1, action="halt"))
    with pytest.raises(ValueError, match="node: expected firm or one of fund"):
        check_limit(limit("region:EMEA", "gross", 1))
    check_limit(limit("region:EMEA", "gross", 1), ("book", "desk", "region", "fund", "firm"))
    with pytest.raises(ValueError, match="node: expected one that has a NAV for leverage"):
        check_limit(limit("currency:EUR", "leverage", 1))
    with pytest.raises(ValueError, match="instrument: expected none for gross"):
        check_limit(limit("fund:F", "gross", 1, instrument="X"))
    check_limit(msgspec.structs.replace(limit("sector:tech", "gross", 1, action="halt"), limit=Decimal(2)))

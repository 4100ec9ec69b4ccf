"""Limits that are held against what is known: less knowledge clears nothing (R10), a restart anywhere changes nothing (R1)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.control import acknowledged
from models.limits import BREACH, SEVERITY, SIGNED, UNKNOWN_NS, LimitKey, LimitMonitor
from models.risk.limit_values import COUNTS, limit_values, unknown_figures
from models.risk.live import RiskModels
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.codec import encode
from schemas.records import Alert, Control, Limit
from tests.unit.test_limit_alerts import T0, Log, S, replayed, stage
from tests.unit.test_limit_values import book, held

NODES = ("account:A", "account:B", "fund:F", "firm", "issuer:I", "issuer:J")
METRICS = ("gross", "net", "long", "short", "delta", "gamma", "vega", "credit", "loss_total", "loss_day", "margin", "margin_maintenance", "margin_usage", "concentration",
           "sector_concentration")


# ---- R10 ---------------------------------------------------------------------------------------------------------------
def limit(node: str, metric: str, bound: float, **more: Any) -> Limit:
    return Limit(**{"limit_id": f"{node}.{metric}", "node": node, "metric": metric, "limit": Decimal(repr(bound)), "version": 1, "by": "r", "reason": "of a test"} | more)


def measured(b: ValuedBook, monitor: LimitMonitor, now_ns: int) -> dict[tuple[str, str], float]:
    models, asked = RiskModels(b, b.contracts, None, INSTRUMENT_GROUPINGS), {(w.limit.node, w.limit.metric) for w in monitor.watches.values()}
    found = limit_values(models, set(NODES), set(METRICS))
    unknown = unknown_figures(models, asked, found)
    for later in (0, UNKNOWN_NS):
        monitor.measure({LimitKey(*k): v for k, v in found.items()}, now_ns + later, now_ns + later, {LimitKey(*k): why for k, why in unknown.items()})
    return found


def monitor_of(bounds: dict[tuple[str, str], float]) -> LimitMonitor:
    monitor = LimitMonitor()
    for (node, metric), bound in bounds.items():
        monitor.add(limit(node, metric, bound))
    return monitor


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("XYE"), st.integers(-2_000, 2_000).filter(bool)), min_size=1, max_size=5, unique_by=lambda x: x[:2]),
       st.sampled_from(["X", "Y", "E", "EURUSD", "cost", "realised", "fee", "NAV"]), st.floats(0.2, 3.0))
def test_less_knowledge_clears_no_limit_and_leaves_none_silent(legs: list[tuple[str, str, int]], gone: str, share: float) -> None:
    positions = [held(q, name, account, "EUR" if name == "E" else "USD") for account, name, q in legs]
    whole = book(*positions)
    models = RiskModels(whole, whole.contracts, None, INSTRUMENT_GROUPINGS)
    true = limit_values(models, set(NODES), set(METRICS))
    size = {k: abs(v) if k[1] in SIGNED else v for k, v in true.items() if k[1] in METRICS}
    monitor = monitor_of({k: max(v * share, 1e-6) if v == v else 1.0 for k, v in size.items()})
    measured(whole, monitor, T0)
    before = {name: w.state for name, w in monitor.watches.items()}
    change: dict[str, Any] = {"cost": {"average_price": None}, "realised": {"realised_pnl": None}, "fee": {"fees": {"XYZ": 0.01}}}.get(gone, {})
    less = book(*(msgspec.structs.replace(p, **change) for p in positions), **({gone: float("nan")} if gone in ("X", "Y", "E", "EURUSD") else {}))
    if gone == "NAV":
        less.add_account(msgspec.structs.replace(less.reference.account_records["A"], nav=None))
        less.revalue(T0)
    fresh = monitor_of({(w.limit.node, w.limit.metric): float(w.limit.limit) for w in monitor.watches.values()})
    for one in (monitor, fresh):
        seen = measured(less, one, T0 + 60 * S)
        for name, watch in one.watches.items():
            key = (watch.limit.node, watch.limit.metric)
            if before[name] == BREACH:
                assert watch.state == BREACH or watch.unknown is not None, (name, "no breach is silent for want of knowledge")
            now = seen.get(key, float("nan"))
            if not (abs(now) if key[1] in SIGNED else now) >= size[key] - 1e-9 * abs(size[key]) and size[key] == size[key]:
                assert watch.state == BREACH or (watch.unknown is not None and watch.unknown.note), (name, size[key], now)
    for name, watch in monitor.watches.items():
        assert SEVERITY.index(watch.state) >= SEVERITY.index(before[name]), f"{name}: {before[name]} became {watch.state}"
    # it is back: nothing is unknown any more
    measured(whole, monitor, T0 + 120 * S)
    assert all(w.unknown is None or size[w.limit.node, w.limit.metric] != size[w.limit.node, w.limit.metric] for w in monitor.watches.values())
    assert COUNTS.isdisjoint(METRICS)


def test_a_figure_is_said_to_be_unknown_once_it_has_been_for_a_while_and_until_it_is_known() -> None:
    alerts, log = stage(limit("desk:D", "gross", 100.0, action="halt"))
    key = LimitKey("desk:D", "gross")

    def at(seconds: float, value: float, why: str) -> list[tuple[Any, ...]]:
        now = T0 + int(seconds * S)
        alerts.measured({key: value}, now, now, lambda node: True, {key: why})
        found = [(a.kind, a.limit_id, a.note) for a in log.alerts()]
        log.take()
        return found

    why = "partial: leaves out 1 positions"
    assert at(0, 50, why) == [] and at(5, 50, "") == [] and at(6, 50, why) == [] and at(15, 50, why) == []
    assert at(16, 50, why) == [("stale", "unknown.desk:D.gross", why)] and at(60, 50, why) == []
    assert at(61, 150, why) == [("breach", "desk:D.gross", None), ("clear", "unknown.desk:D.gross", why)]
    assert at(62, 10, why) == [], "what leaves something out clears nothing"
    assert at(63, 10, "") == [("clear", "desk:D.gross", None)]


# ---- R1 ----------------------------------------------------------------------------------------------------------------
LIMITS = {"L": limit("desk:D", "gross", 100.0, limit_id="L", action="halt"), "M": limit("firm", "gross", 50.0, limit_id="M", action="reduce"),
          "N": limit("desk:D", "net", 80.0, limit_id="N")}
FIGURES = {"L": LimitKey("desk:D", "gross"), "M": LimitKey("firm", "gross"), "N": LimitKey("desk:D", "net")}
STEPS = st.lists(st.one_of(
    st.tuples(st.just("measure"), st.fixed_dictionaries({k: st.tuples(st.sampled_from([0.0, 45.0, 79.0, 85.0, 120.0]), st.sampled_from(["", "", "partial"])) for k in FIGURES})),
    st.tuples(st.just("seen"), st.sampled_from("LMN")), st.tuples(st.just("lift"), st.sampled_from(["desk:D", "all"])),
    st.tuples(st.just("limit"), st.sampled_from("LMN"), st.sampled_from([60.0, 130.0, None]))), max_size=12)


class Life:
    """A stage, the topics as they stand, and the time."""

    def __init__(self) -> None:
        self.alerts, self.log = stage(*LIMITS.values())
        self.limits, self.now, self.records = dict(LIMITS), T0, list[tuple[str, Any]]()
        self.last: dict[LimitKey, tuple[float, str]] = {}

    def read(self) -> None:
        """Take in what came on the topics since, its own records among them."""
        sent, self.log.sent = self.log.sent, []
        self.records += sent
        for topic, record in sent:
            if topic == "alerts":
                self.alerts.on_alerts(replayed([record]))
            else:
                self.alerts.take_control(record)

    def measure(self) -> None:
        self.alerts.measured({k: v for k, (v, _) in self.last.items()}, self.now, self.now, lambda node: True, {k: why for k, (_, why) in self.last.items()})

    def step(self, step: tuple[Any, ...]) -> None:
        self.now += 17 * S
        if step[0] == "measure":
            self.last = {FIGURES[k]: v for k, v in step[1].items()}
            self.measure()
        elif step[0] == "seen":
            raised = [r for topic, r in self.records if topic == "alerts" and r.limit_id == step[1]]
            if raised:
                self.log.sent.append(("alerts", acknowledged(raised[-1], "ann", "seen")))
        elif step[0] == "lift":
            held = [r for topic, r in self.records if topic == "controls" and r.scope == step[1]]
            self.log.sent.append(("controls", Control(scope=step[1], state="active", reason="looked", by="ann", ts=self.now, rev=(held[-1].rev if held else 0) + 1)))
        elif step[2] is None:
            self.limits.pop(step[1], None)
            self.alerts.monitor.remove(step[1])
        else:
            held_limit = self.limits.get(step[1], LIMITS[step[1]])
            self.limits[step[1]] = msgspec.structs.replace(held_limit, limit=Decimal(step[2]), version=held_limit.version + 1)
            self.alerts.monitor.add(self.limits[step[1]])


def restarted(records: list[tuple[str, Any]], limits: dict[str, Limit], limits_first: bool) -> Life:
    again = Life()
    again.alerts, again.log = stage(log=Log())
    again.limits, again.records = dict(limits), list(records)
    for first in (limits_first, not limits_first):
        if first:
            for x in limits.values():
                again.alerts.monitor.add(x)
        else:
            again.alerts.on_alerts(replayed([r for topic, r in records if topic == "alerts"]))
    newest = {r.scope: r for topic, r in records if topic == "controls"}
    for control in newest.values():
        again.alerts.take_control(control)
    return again


@settings(max_examples=40, deadline=None)
@given(STEPS, st.booleans())
def test_a_restart_after_any_record_is_no_restart(steps: list[tuple[Any, ...]], limits_first: bool) -> None:
    life = Life()
    for step in steps:
        before = len(life.records)
        life.step(step)
        life.read()
        again = restarted(life.records, life.limits, limits_first)
        assert again.alerts.state_hash() == life.alerts.state_hash(), step
        if step[0] != "measure":
            continue
        # killed between a breach, its alert, its trip: after the same measure all of it stands
        for cut in range(before, len(life.records)):
            again = restarted(life.records[:cut], life.limits, limits_first)
            again.now, again.last = life.now, life.last
            again.measure()
            again.read()
            assert {s: c.state for s, c in again.alerts.states.standing.items()} == {s: c.state for s, c in life.alerts.states.standing.items()}
            assert standing(again) == standing(life)


def standing(life: Life) -> dict[str, tuple[str, str]]:
    """What stands of the log of alerts, by limit; what is said to be unknown waits its time again after a kill."""
    newest: dict[str, Alert] = {r.limit_id: r for topic, r in life.records if topic == "alerts" and not r.limit_id.startswith("unknown.")}
    assert encode(list(newest.values()))
    return {name: (a.kind, a.alert_id) for name, a in newest.items()}

"""How much of a limit is used that only a gate measures: said by the one gate that speaks for its node, known while it is said."""

from __future__ import annotations

import asyncio
import contextlib
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from agents import gate_watch
from agents.gate_watch import GateWatch
from agents.risk_watch import RiskWatch
from app.gateway.standing import standings
from app.gateway.state import GatewayState
from app.gateway.used_limits import AGE_MAX_NS, UsedLimits
from models.gate.book import GateBook
from models.gate.limit_nodes import MEASURED, check_limit
from models.limits import LimitKey
from models.risk.limit_values import limit_values
from schemas.addresses import LimitsUsed
from schemas.codec import decoder_of, encode
from tables.kafka import speaker_partition
from tests.property.test_risk_models import NOW, play
from tests.unit.test_gate_book import T0, gate, order
from tests.unit.test_gate_figures import held, limit

_ = gate
PARTITIONS = 4
RULES = (limit("desk:D", "daily_quantity", 100), limit("account:A", "message_count", 50, window_ms=60_000), limit("account:A", "position_long", 400, instrument="X", limit_id="P"),
         limit("firm", "reject_rate", 0.5), limit("venue:V", "credit", 1e6), limit("desk:D", "gross", 1e9), limit("firm", "order_quantity", 1e6))


class Topic:
    """What gates send to the topic of used limits."""

    def __init__(self) -> None:
        self.sent: list[LimitsUsed] = []

    def send(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        record = decoder_of(LimitsUsed).decode(value)
        speaker = {"gate": "", "risk": "risk|"}[record.of]
        assert (topic, key, partition) == ("limits-used", f"{speaker}{record.partitions[0]}".encode(), 0)
        self.sent.append(record)


def says(g: GateBook, owned: set[int], now_ns: int = T0) -> list[LimitsUsed]:
    """Return what a gate that owns these partitions says once."""
    topic = Topic()
    watch = GateWatch(g, {"limits-used": "limits-used"}, topic, topic, PARTITIONS, owned.__contains__)  # type: ignore[arg-type]

    async def scenario() -> None:
        task = asyncio.create_task(watch.say_used(lambda: now_ns))
        for _ in range(200):
            await asyncio.sleep(0)
            if topic.sent:
                break
        task.cancel()

    asyncio.run(scenario())
    return topic.sent[:1]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_watch, "SAY_S", 0.0)


def with_rules(g: GateBook) -> GateBook:
    for rule in RULES:
        g.add_limit(rule)
    return g


def test_every_limit_that_only_the_gate_measures_has_its_figure_however_little_is_used(gate: GateBook) -> None:
    g = with_rules(gate)
    assert g.decide(order("1", quantity=30, price=99), T0).outcome == "accept"
    g.add_positions([encode(held(12))], 0)
    found = says(g, set(range(PARTITIONS)))[0]
    assert {(node, metric, window): value for node, metric, window, _, value in found.used} == {
        ("desk:D", "daily_quantity", 0): 30.0, ("account:A", "message_count", 60_000): 1.0, ("account:A", "position_long", 0): 42.0, ("venue:V", "credit", 0): 0.0}, \
        "a share of no orders is not known; gross is measured by who values positions; nothing is used of a limit on each order"
    used = UsedLimits(PARTITIONS, gate.book.reference, gate.levels)
    used.take(found)
    assert used.value(LimitKey("desk:D", "daily_quantity"), T0) == 30.0
    assert used.value(LimitKey("account:A", "position_long", 0, "X"), T0 + AGE_MAX_NS) == 42.0
    assert used.value(LimitKey("venue:V", "credit"), T0) == 0.0
    assert used.value(LimitKey("firm", "reject_rate", 60_000), T0) is None
    assert used.value(LimitKey("desk:D", "daily_value"), T0) is None, "nobody has said anything of it"
    assert used.value(LimitKey("desk:D", "daily_quantity"), T0 + AGE_MAX_NS + 1) is None, "nor lately"


def test_one_gate_speaks_for_a_node_and_the_next_owner_of_its_partition_after_it(gate: GateBook) -> None:
    g = with_rules(gate)
    g.decide(order("1", quantity=30, price=99), T0)
    p = speaker_partition("desk:D", PARTITIONS)
    others = set(range(PARTITIONS)) - {p}
    (here,), (there,) = says(g, {p}), says(g, others)
    assert {x[0] for x in here.used} & {x[0] for x in there.used} == set()
    key = LimitKey("desk:D", "daily_quantity")
    used = UsedLimits(PARTITIONS, gate.book.reference, gate.levels)
    used.take(there)
    assert used.value(key, T0) is None
    used.take(here)
    used.take(there)
    assert used.value(key, T0) == 30.0
    later = LimitsUsed(partitions=sorted([p, *others]), used=[("desk:D", "daily_quantity", 0, "", 31.0)], ts=T0 + 1)
    used.take(later)
    used.take(here)  # of before, read late
    assert used.value(key, T0 + 1) == 31.0
    assert says(g, set()) == []


def test_who_lost_a_partition_while_it_counted_says_nothing(gate: GateBook) -> None:
    g, owned = with_rules(gate), set(range(PARTITIONS))
    topic = Topic()
    watch = GateWatch(g, {"limits-used": "limits-used"}, topic, topic, PARTITIONS, owned.__contains__)  # type: ignore[arg-type]

    async def scenario() -> None:
        def clock() -> int:
            asyncio.get_running_loop().call_soon(owned.clear)
            return T0

        task = asyncio.create_task(watch.say_used(clock))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(scenario())
    assert topic.sent == []


def test_the_gateway_shows_what_gates_say(gate: GateBook) -> None:
    g = with_rules(gate)
    g.decide(order("1", quantity=30, price=99), T0)
    used = UsedLimits(PARTITIONS, gate.book.reference, gate.levels)
    used.take(says(g, set(range(PARTITIONS)))[0])
    state: Any = GatewayState("USD", gate.levels)
    found = dict(zip((x.metric for x in RULES), standings(state, used, RULES, T0), strict=True))
    assert (found["daily_quantity"].value, found["daily_quantity"].utilisation, found["daily_quantity"].state) == (30.0, 0.3, "ok")
    assert (found["reject_rate"].value, found["gross"].value, found["order_quantity"].value) == (None, None, None)
    assert {x.value for x in standings(state, used, RULES, T0 + 2 * AGE_MAX_NS)} == {None}


def test_every_figure_that_a_limit_is_held_against_is_shown_however_little_of_it_is_used() -> None:
    """What the risk stage measures, by models or as sums, in the firm's currency: one value, at the monitor and on the page."""
    book, models = play([(0, "SAP", 500.0), (1, "INV", 20.0), (2, "TOYO", -400.0), (4, "SAP", -30.0)], False)
    for name, nav in (("A0", "1000000"), ("A1", "900000")):  # stated in euros; limits are not
        book.add_account(msgspec.structs.replace(book.reference.account_records[name], base_currency="EUR", nav=Decimal(nav)))
    book.revalue(NOW)
    models.run(NOW)
    models.run(NOW + 1)  # a drawdown is of two
    nodes = ("firm", "fund:F0", "desk:D0", "book:B0", "account:A0", "issuer:SAP", "counterparty:PB0")
    measured = limit_values(models, set(nodes), frozenset(MEASURED))
    topic, state = Topic(), GatewayState("USD", book.levels)
    watch = RiskWatch({"limits-used": "limits-used", "alerts": "alerts", "limits": "limits", "controls": "controls"}, topic, topic, book.reference, book.levels)  # type: ignore[arg-type]
    limits = []
    for node, metric in measured:
        rule = limit(node, metric, 1e12, limit_id=f"{node}.{metric}")
        with contextlib.suppress(ValueError):
            check_limit(rule, book.levels)
            limits.append(rule)
            watch.monitor.add(rule)
    state.book = book  # what is a sum of positions a gateway has itself
    used = UsedLimits(PARTITIONS, book.reference, book.levels)
    watch.look(models, NOW, lambda node: True)
    watch.say_used(list(range(PARTITIONS)), NOW)
    watch.say_used(list(range(PARTITIONS)), NOW + 1)
    assert len(topic.sent) == 1, "once a second"
    used.take(topic.sent[0])
    known = {key: value for key, value in measured.items() if math.isfinite(value)}
    assert {m for _, m in known} >= {"leverage", "drawdown", "var_hist", "es_hist", "var_mc", "concentration", "sector_concentration", "gross", "loss_day"}
    for rule, stands in zip(limits, standings(state, used, limits, NOW), strict=True):
        if (rule.node, rule.metric) in known:
            assert stands.value == pytest.approx(known[rule.node, rule.metric], rel=1e-12), rule.limit_id
            assert stands.utilisation is not None and stands.state == "ok"
        else:
            assert (stands.value, stands.state) == (None, "unknown"), rule.limit_id

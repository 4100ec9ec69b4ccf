"""The four roles: what each reads, how its stage is built, and what stands beside it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import TopicPartition

from agents.gate import GateStage
from agents.kept_decisions import send_missing
from agents.marks import MarkStage
from agents.ports import Clock
from agents.positions import PositionStage
from agents.reference_tail import ReferenceTail
from agents.risk import RiskStage
from agents.stage import Stage
from app.gate_addresses import GateAddresses
from app.gate_http import GateHttp
from app.gate_socket import GateSocket
from app.gateway.access import parse_tokens
from app.history import load_history
from app.metrics import PrometheusCounters
from app.publisher import BatchingPublisher
from app.settings import Role, Settings
from models.gate.state import capacities_of
from models.risk.factor_history import History
from tables.exit_codes import ExitCode
from tables.journal import Journal, JournalDamaged
from tables.kafka import KafkaClient
from tables.lease import Lease
from tables.standby import Standby
from tables.tasks import process

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What a stage is given: clients, clocks, and what it says things with."""

    settings: Settings
    client: KafkaClient
    topics: dict[str, str]
    reference: ReferenceTail
    publisher: BatchingPublisher
    counters: PrometheusCounters
    clock: Clock
    #: commits positions through the consumer, for the partitions still held
    commit: Callable[[dict[TopicPartition, int]], Awaitable[bool]]
    lease: Lease | None


@dataclass(frozen=True)
class Built:
    """A stage and what stands beside it."""

    stage: Stage
    #: finds a row of the role's table
    lookup: Callable[[str], Any] | None = None
    #: called with the partitions that are owned, once they are
    announce: Callable[[set[int]], None] = lambda partitions: None
    #: stopped in this order before the stage, and after everything else
    doors: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RoleParts:
    """What a role is made of.

    Parameters
    ----------
    sources : topics whose partitions are shared among the workers of the role
    linger_s : how long records are gathered: a decision waits for no other, nodes and alerts come in one go anyhow
    pace_s : from one request to the next: a gate answers order by order, windows and nodes are published by the clock
    build : makes the stage
    table : name, changelog topic and description, of a role that has one
    leased : what it writes outside of transactions nobody else fences: it acts only while it holds a lease
    """

    sources: tuple[str, ...]
    linger_s: float
    pace_s: float
    build: Callable[[Surroundings], Awaitable[Built]]
    table: tuple[str, str, str] | None = None
    leased: bool = False


async def build_positions(given: Surroundings) -> Built:
    """Return the stage that folds trades."""
    s = given.settings
    standby = Standby(given.client, given.topics["positions-changelog"], s.data_dir) if s.standby else None
    stage = PositionStage(given.client, s.group("positions"), given.topics, s.partitions, s.data_dir, given.reference,
                          given.publisher, given.clock, given.counters, s.trade_ids_per_partition,
                          s.lateness_ms * 1_000_000, standby, s.future_ns)
    return Built(stage, lookup=stage.lookup)


async def build_marks(given: Surroundings) -> Built:
    """Return the stage that makes marks of quotes."""
    return Built(MarkStage(given.client, given.topics, given.reference, given.publisher, given.clock, given.counters,
                           given.settings.quote_lateness_ms * 1_000_000, given.commit,
                           given.settings.future_ns))


async def build_risk(given: Surroundings) -> Built:
    """Return the stage that aggregates, with its history where there is one."""
    s = given.settings
    history: History | None = None
    if s.history:
        history = await asyncio.get_running_loop().run_in_executor(
            None, load_history, s.history, s.scenario_volatility == "current", s.var_horizon_days)
        log.info("history: %d days of %d factors", len(history.moves), len(history.factors))
    return Built(RiskStage(given.client, given.topics, given.reference, given.publisher, given.clock, given.counters,
                           s.base_currency, s.levels, s.partitions, history, s.participation, s.trading_day(),
                           s.future_ns, s.surface_age_ns))


async def build_gate(given: Surroundings) -> Built:
    """Return the stage that decides orders; its journal is read and its doors are open."""
    s = given.settings
    assert given.lease is not None
    journal = Journal(s.journal_dir())
    try:
        left = journal.take_left()
    except JournalDamaged as error:
        process.failed("journal", error, ExitCode.DAMAGED)
        raise
    missing = await send_missing(given.client, given.publisher, given.topics["decisions"], s.partitions, left)
    journal.forget_left()
    if missing:
        log.warning("%d decisions were answered and not on the log when a gate before ended: they are now", missing)
    stage = GateStage(given.client, given.topics, given.reference, given.publisher, given.clock, given.counters,
                      s.base_currency, s.levels, s.partitions, given.lease, s.trading_day(), journal,
                      s.gate_write_down_s, s.future_ns, s.gate_takes_last, s.self_match == "owner", s.surface_age_ns,
                      capacities_of(s.gate_accounts, s.gate_instruments))
    if s.gate_socket is None and s.gate_http_port is None:
        return Built(stage, close=journal.close)
    addresses = GateAddresses(given.client, given.topics["gates"], given.publisher)
    await addresses.start()
    doors: list[Callable[[], Awaitable[None]]] = []
    address: str | None = None
    if s.gate_socket is not None:
        on_socket = GateSocket(stage, addresses, s.gate_socket, s.partitions)
        await on_socket.start()
        doors.append(on_socket.stop)
    if s.gate_http_port is not None:
        tokens = parse_tokens(s.api_tokens.get_secret_value() if s.api_tokens else None)
        over_http = GateHttp(stage, addresses, s.partitions, s.gate_http_host, s.gate_http_port, tokens)
        await over_http.start()
        doors.append(over_http.stop)
        address = over_http.address
    return Built(stage, announce=lambda owned: addresses.announce(owned, address, s.gate_socket, time.time_ns()),
                 doors=[*doors, addresses.stop], close=journal.close)


PARTS: dict[Role, RoleParts] = {
    "positions": RoleParts(("trades", "positions.external"), 0.01, 0.025, build_positions,
                           ("positions", "positions-changelog", "Positions by account and instrument.")),
    "marks": RoleParts(("ticks",), 0.006, 0.03, build_marks,
                       ("marks", "marks",
                        "Last good prices by instrument; the changelog is the `marks` topic itself.")),
    "risk": RoleParts(("positions",), 0.002, 0.025, build_risk),
    "gate": RoleParts(("orders",), 0.001, 0.002, build_gate, leased=True)}

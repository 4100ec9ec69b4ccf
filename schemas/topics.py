"""Topic names, keys and how each is kept: data, no client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DAY_MS = 86_400_000
#: the largest batch that a topic takes of those that this system writes; a broker's own bound is 1 MiB
BATCH_BYTES_MAX = 8 << 20
#: so many replicas survive the loss of a machine, and go on
REPLICAS = 3


@dataclass(frozen=True)
class Topic:
    """One topic of contract v1; ``config`` holds broker settings as text."""

    name: str
    key: str
    direction: str
    help: str
    compact: bool = False
    partitions: str = "data"
    #: nothing that was missed is read again
    passing: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def written(self) -> bool:
        """Return whether this system writes it."""
        return self.direction != "in"

    def retention_ms(self, horizon_ms: int) -> int:
        """Return how long records are kept where old ones are deleted: a rewind reads what lies within the horizon."""
        declared = int(self.config.get("retention.ms", 7 * DAY_MS))
        return declared if self.passing else max(declared, horizon_ms)

    def compaction_lag_ms(self, horizon_ms: int) -> int:
        """Return how long replaced rows are kept."""
        kept = horizon_ms if self.direction in ("internal", "both") else 0
        return int(self.config.get("min.compaction.lag.ms", kept))

    def broker_config(self, horizon_ms: int, replicas: int) -> dict[str, str]:
        """Return the settings to create the topic with.

        Parameters
        ----------
        horizon_ms : how far a rewind may go back
        replicas : of each partition; what is acknowledged is on all of them but one
        """
        kept = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(self.compaction_lag_ms(horizon_ms)),
                "segment.ms": "600000"} if self.compact else {
            "cleanup.policy": "delete", "retention.ms": str(self.retention_ms(horizon_ms)), "retention.bytes": "-1"}
        large = {"max.message.bytes": str(BATCH_BYTES_MAX)} if self.written else {}
        return {**self.config} | kept | large | {"min.insync.replicas": str(in_sync(replicas)),
                                                 "unclean.leader.election.enable": "false"}


def in_sync(replicas: int) -> int:
    """Return how many replicas a record is on when it is acknowledged: one may be away, and nothing stops."""
    return max(1, replicas - 1)


TRADES = Topic("trades", "account", "in", "Executions as booked.")
ORDERS = Topic("orders", "account", "in", "Orders to be checked.")
TICKS = Topic("ticks", "instrument", "in", "Quotes: JSON, JSON arrays or the packed binary form.",
              passing=True, config={"retention.ms": str(DAY_MS)})
EXTERNAL = Topic("positions.external", "source|account|instrument|kind", "in",
                 "Positions as outside sources state them; partition by account.", compact=True)
INSTRUMENTS = Topic("reference.instruments", "instrument", "in", "What is traded.", compact=True, partitions="one")
ACCOUNTS = Topic("reference.accounts", "account", "in", "Where positions belong.", compact=True, partitions="one")
CORPORATE_ACTIONS = Topic("corporate.actions", "instrument|action_id", "in", "Splits and cash dividends.", compact=True,
                          partitions="one")
COUNTERPARTIES = Topic("reference.counterparties", "counterparty", "in", "Ratings of counterparties.", compact=True,
                       partitions="one")
TOUCHES = Topic("touches", "instrument", "both", "Barriers of options that were touched, and who saw it.", compact=True,
                partitions="one")
GATES = Topic("gates", "partition", "internal", "Where the gate of a partition answers over HTTP and on a socket.",
              compact=True, partitions="one")
PROGRESS = Topic("progress", "partition", "internal", "How far each partition of `trades` is in `positions`, 2 Hz.",
                 compact=True, partitions="one")
READS = Topic("reads", "role", "internal", "How far each role has read, once what follows is on the log.",
              compact=True, partitions="one", config={"min.compaction.lag.ms": "0"})
LIMITS = Topic("limits", "limit_id", "both", "Limits, versioned.", compact=True, partitions="one")
CONTROLS = Topic("controls", "scope", "both", "Halts and kills, versioned.", compact=True, partitions="one")
APPROVALS = Topic("approvals", "approval_id", "both", "Writes that wait for a second person.", partitions="one",
                  config={"retention.ms": str(DAY_MS)})
SURFACES = Topic("market.surfaces", "underlying", "in", "Vol surfaces, curves, dividends, funding.", compact=True,
                 partitions="one")
MARKS = Topic("marks", "instrument", "out", "The mark table's changelog: last good prices, 100 ms windows.",
              compact=True)
POSITIONS = Topic("positions", "account|instrument", "out", "Absolute position rows; partition by fund.", compact=True)
DECISIONS = Topic("decisions", "account", "out", "Verdicts on orders.")
RISK = Topic("risk", "node", "out", "Aggregates and P&L of every node on one snapshot; `node#models`: its models.",
             compact=True)
EXPOSURE = Topic("exposure", "node and partition", "internal",
                 "What each of several gates let through and counted under limited nodes, for the others, 10 Hz.",
                 compact=True)
LIMITS_USED = Topic("limits-used", "partition", "internal",
                    "What only gates, or models, measure of limits, by the lowest partition of who says it, 1 Hz.",
                    compact=True, partitions="one", config={"min.compaction.lag.ms": "0"})
UNIT_VARS = Topic("unit-vars", "part", "internal",
                  "Historical VaR of one unit of every instrument: what an order adds to that of a node at most.",
                  compact=True, partitions="one", config={"min.compaction.lag.ms": "0"})
ALERTS = Topic("alerts", "node", "out", "Facts that want a person.")
QUARANTINE = Topic("quarantine", "origin topic-partition-offset", "out", "Records that were not applied, and why.")
POSITIONS_CHANGELOG = Topic("positions-changelog", "table key", "internal",
                            "The position table's changelog (Faust table `positions`).", compact=True)

GATE_CHANGELOG = Topic("gate-changelog", "kind and id", "internal",
                       "What works at a gate and what it counts of the day, and up to where on its logs.", compact=True,
                       config={"min.compaction.lag.ms": "0"})

TOPICS: tuple[Topic, ...] = (
    TRADES, ORDERS, TICKS, EXTERNAL, INSTRUMENTS, ACCOUNTS, CORPORATE_ACTIONS, COUNTERPARTIES, LIMITS, CONTROLS,
    APPROVALS, SURFACES, TOUCHES, MARKS, POSITIONS, DECISIONS, RISK, EXPOSURE, PROGRESS, READS, LIMITS_USED,
    UNIT_VARS, ALERTS, GATES, QUARANTINE, POSITIONS_CHANGELOG, GATE_CHANGELOG,
)


def topic_name(prefix: str, topic: Topic) -> str:
    """Return the name on the broker: the prefix in front, as configured."""
    return prefix + topic.name

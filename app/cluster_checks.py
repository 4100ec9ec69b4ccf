"""What the promises need of a cluster, check by check: what is, what should be, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from aiokafka.errors import KafkaError

from app.rule_topics import writer_id
from app.settings import ROLES, Settings
from schemas.topics import BATCH_BYTES_MAX, DAY_MS, POSITIONS_CHANGELOG, REPLICAS, TOPICS, TRADES, Topic, in_sync
from tables.cluster import OFFSETS_TOPIC, TRANSACTIONS_TOPIC, Clock, ClusterFacts, TopicFacts, look_at
from tables.transactions import owner_id

#: what the embedded broker calls its cluster
EMBEDDED = "kfake"
#: the cluster's own topics, and which of its settings they are made by
INTERNAL = {
    TRANSACTIONS_TOPIC: {"replication factor": "transaction.state.log.replication.factor",
                            "min.insync.replicas": "transaction.state.log.min.isr"},
    OFFSETS_TOPIC: {"replication factor": "offsets.topic.replication.factor",
                           "min.insync.replicas": "min.insync.replicas"}}
#: first level of ``metadata.version`` of each release, the newest first
RELEASES = ((26, "4.1"), (22, "4.0"), (21, "3.9"), (20, "3.8"), (15, "3.7"), (12, "3.6"), (9, "3.5"), (8, "3.4"),
            (4, "3.3"))
TRANSACTION_VERSION = 2
BACK = "start the brokers that are away"
#: a broker's clock may lie behind a worker's by so much, ms; ahead by more: a transaction takes a while
BEHIND_MS, AHEAD_MS = 1_000, 10_000


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    #: this cluster cannot give it (one broker; the embedded one), or no promise rests on it
    SHORT = "short"
    #: a promise is not kept, and what mends it is said
    WRONG = "wrong"
    #: the cluster does not say
    UNKNOWN = "unknown"


class Promise(StrEnum):
    """What a cluster that falls short of a check falls short of."""

    RUNS = "runs at all"
    ONCE = "each trade counts once"
    MACHINE = "survives the loss of a machine"
    REWIND = "goes back over the rewind horizon"
    SECOND = "has a second defence beside our own"


@dataclass(frozen=True)
class Check:
    """One thing that is looked at.

    Parameters
    ----------
    what : its name
    expected : in words, for the reference
    promise : what rests on it
    """

    what: str
    expected: str
    promise: Promise


REACHED = Check("brokers reached", "every broker answers at the address that the cluster gives for it", Promise.RUNS)
RELEASE = Check("version", "3.3 or newer (tests run on 4.1)", Promise.RUNS)
EMBEDDED_ONE = Check("kind of broker", "a cluster that keeps the log on disk", Promise.MACHINE)
BROKERS = Check("brokers", "three or more", Promise.MACHINE)
FEATURE = Check("transaction.version", "2 (KIP-890)", Promise.SECOND)
VERIFIED = Check("transaction.partition.verification.enable", "true", Promise.SECOND)
AUTO = Check("auto.create.topics.enable", "false: else a mistyped name is a topic with settings of nobody's",
             Promise.SECOND)
SESSION = Check("group.min.session.timeout.ms, group.max.session.timeout.ms",
                "DESKRISK_SESSION_TIMEOUT_S lies between them", Promise.RUNS)
OFFSETS = Check("offsets.retention.minutes", "at least the rewind horizon: who was away for less goes on where it was",
                Promise.ONCE)
REQUESTS = Check("socket.request.max.bytes", "at least 8 MiB", Promise.RUNS)
EXISTS = Check("exists", "created by `deskrisk topics create`", Promise.RUNS)
PARTITIONS = Check("partitions", "DESKRISK_PARTITIONS, of some topics one", Promise.ONCE)
LEADERS = Check("leaders", "every partition has one", Promise.RUNS)
REPLICATION = Check("replication factor", "three, or as many as there are brokers, or DESKRISK_REPLICATION",
                    Promise.MACHINE)
IN_SYNC_NOW = Check("replicas in sync", "as many as min.insync.replicas, at the least", Promise.RUNS)
IN_SYNC = Check("min.insync.replicas", "the replication factor less one, and at least one", Promise.MACHINE)
UNCLEAN = Check("unclean.leader.election.enable", "false: else what was acknowledged may be gone", Promise.MACHINE)
POLICY = Check("cleanup.policy", "as the topic was declared", Promise.ONCE)
RETENTION = Check("retention.ms", "at least the rewind horizon (topics that delete, but quotes)", Promise.REWIND)
RETAINED = Check("retention.bytes", "-1 (the same): else records go before their time", Promise.REWIND)
LAG = Check("min.compaction.lag.ms", "the rewind horizon (what this system reads back)", Promise.REWIND)
DELETIONS = Check("delete.retention.ms", "at least a day: who was away for less sees what was deleted", Promise.ONCE)
SIZE = Check("max.message.bytes", "at least 8 MiB (topics that this system writes)", Promise.RUNS)
TOPIC_ACL = Check("operations on a topic", "Read and Describe; Write, too, where this system writes", Promise.RUNS)
GROUP_ACL = Check("operations on a group", "Read", Promise.RUNS)
TRANSACTION_ACL = Check("operations on a transactional id", "Write", Promise.RUNS)
CLOCKS = Check("clocks", "a broker's and a worker's differ by less than a second (ten where the broker's is ahead)",
               Promise.ONCE)

CHECKS = (EMBEDDED_ONE, REACHED, RELEASE, BROKERS, FEATURE, VERIFIED, AUTO, SESSION, OFFSETS, REQUESTS, EXISTS,
          PARTITIONS, LEADERS, REPLICATION,
          IN_SYNC_NOW, IN_SYNC, UNCLEAN, POLICY, RETENTION, RETAINED, LAG, DELETIONS, SIZE, TOPIC_ACL,
          GROUP_ACL, TRANSACTION_ACL, CLOCKS)


@dataclass(frozen=True)
class Finding:
    """How one check came out.

    Parameters
    ----------
    check : its name
    where : the topic, group, broker or id that it is of; empty: the cluster
    state : how it came out
    found, expected : what is, and what should be
    falls_short_of : the promise, where it is not ok
    mend : the command or setting that mends it
    """

    check: str
    where: str
    state: State
    found: str
    expected: str = ""
    falls_short_of: str = ""
    mend: str = ""

    def record(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return asdict(self)


def _low_first(value: str) -> tuple[int, str]:
    """Order numbers by size, and true before false: what is worst comes first."""
    return (int(value), "") if value.isdigit() else (0, "" if value == "true" else value)


class Judge:
    """Compares a cluster with what the settings of this system need."""

    def __init__(self, settings: Settings, facts: ClusterFacts) -> None:
        self._s, self._f = settings, facts
        self._embedded = facts.cluster_id == EMBEDDED
        self._brokers = len(facts.brokers)
        self._replicas = settings.replication or min(REPLICAS, max(1, self._brokers))
        self._declared = {settings.topics()[t.name]: t for t in TOPICS}

    # ---- how a finding is made ------------------------------------------------------------------------------------
    def _ok(self, check: Check, where: str, found: object, expected: object = "") -> Finding:
        return Finding(check.what, where, State.OK, str(found), str(expected))

    def _unknown(self, check: Check, where: str, expected: object) -> Finding:
        return Finding(check.what, where, State.UNKNOWN, "the broker does not say", str(expected), str(check.promise))

    def _bad(self, check: Check, where: str, found: object, expected: object, mend: str,
             short: bool = False) -> Finding:
        short = short or self._embedded or check.promise is Promise.SECOND
        return Finding(check.what, where, State.SHORT if short else State.WRONG, str(found), str(expected),
                       str(check.promise), mend)

    def _command(self, name: str, rest: str) -> str:
        secured = "" if self._s.security_protocol == "PLAINTEXT" else " --command-config FILE"
        return f"{name}.sh --bootstrap-server {self._s.brokers}{secured} {rest}"

    def _set(self, topic: str, name: str, value: object) -> str:
        return self._command("kafka-configs",
                             f"--alter --entity-type topics --entity-name {topic} --add-config {name}={value}")

    def _set_broker(self, name: str, value: object) -> str:
        return f"{name}={value} in server.properties of each broker, and a restart of it"

    # ---- the cluster ----------------------------------------------------------------------------------------------
    def findings(self) -> list[Finding]:
        """Return how every check came out, of the cluster first."""
        return [*self._of_cluster(), *self.of_topics(), *self._of_rights(), self._of_clocks()]

    def _of_cluster(self) -> Iterator[Finding]:
        f = self._f
        if self._embedded:
            yield self._bad(EMBEDDED_ONE, "", "the embedded broker, in memory", EMBEDDED_ONE.expected,
                            "for trying out alone; DESKRISK_BROKERS names a cluster")
        for node, address in f.brokers.items():
            if node in f.unreachable:
                yield self._bad(REACHED, f"broker {node}", f.unreachable[node], address,
                                f"advertised.listeners of broker {node}: an address that this machine reaches")
            else:
                yield self._ok(REACHED, f"broker {node}", address)
        yield from self._features()
        if self._brokers >= REPLICAS:
            yield self._ok(BROKERS, "", self._brokers)
        else:
            yield self._bad(BROKERS, "", self._brokers, BROKERS.expected, "more brokers, on machines of their own",
                            short=True)
        yield from self._broker_settings()
        for name in INTERNAL:
            yield from self._own_topic(name)

    def _features(self) -> Iterator[Finding]:
        level = None if self._f.features is None else self._f.features.get("metadata.version")
        release = next((name for first, name in RELEASES if level is not None and level >= first), None)
        if level is None:
            yield self._unknown(RELEASE, "", RELEASE.expected)
        elif release is None:
            yield self._bad(RELEASE, "", f"metadata.version {level}", RELEASE.expected, "upgrade the brokers")
        else:
            newest = " or newer" if release == RELEASES[0][1] else ""
            yield self._ok(RELEASE, "", f"{release}{newest} (metadata.version {level})")
        if self._f.features is None:
            yield self._unknown(FEATURE, "", TRANSACTION_VERSION)
            return
        found = self._f.features.get("transaction.version", 0)
        yield self._ok(FEATURE, "", found) if found >= TRANSACTION_VERSION else self._bad(
            FEATURE, "", found, TRANSACTION_VERSION,
            self._command("kafka-features", f"upgrade --feature transaction.version={TRANSACTION_VERSION}"))

    def _broker_settings(self) -> Iterator[Finding]:
        horizon_min, session_ms = -(-self._s.horizon_ms // 60_000), int(self._s.session_timeout_s * 1000)
        yield from self._exact(VERIFIED, "true")
        yield from self._exact(AUTO, "false")
        yield from self._at_least(OFFSETS, "offsets.retention.minutes", horizon_min)
        yield from self._at_least(REQUESTS, "socket.request.max.bytes", BATCH_BYTES_MAX)
        lowest, highest = (self._f.setting(f"group.{end}.session.timeout.ms") for end in ("min", "max"))
        for node in self._f.settings:
            where, said = f"broker {node}", node in lowest and node in highest
            found = f"{lowest[node]} to {highest[node]}" if said else ""
            if not said:
                yield self._unknown(SESSION, where, session_ms)
            elif int(lowest[node]) <= session_ms <= int(highest[node]):
                yield self._ok(SESSION, where, found)
            else:
                yield self._bad(SESSION, where, found, f"{session_ms} within them",
                                "DESKRISK_SESSION_TIMEOUT_S, or both in server.properties of each broker")

    def _exact(self, check: Check, wanted: str) -> Iterator[Finding]:
        found = self._f.setting(check.what)
        for node in self._f.settings:
            where = f"broker {node}"
            if node not in found:
                yield self._unknown(check, where, wanted)
            elif found[node] == wanted:
                yield self._ok(check, where, found[node])
            else:
                yield self._bad(check, where, found[node], wanted, self._set_broker(check.what, wanted))

    def _at_least(self, check: Check, name: str, least: int) -> Iterator[Finding]:
        found = self._f.setting(name)
        for node in self._f.settings:
            where = f"broker {node}"
            if node not in found:
                yield self._unknown(check, where, f"at least {least}")
            elif int(found[node]) >= least:
                yield self._ok(check, where, found[node])
            else:
                yield self._bad(check, where, found[node], f"at least {least}", self._set_broker(name, least))

    def _own_topic(self, name: str) -> Iterator[Finding]:
        """Judge a topic of the cluster's own, or the settings that it will be made by."""
        if (topic := self._f.topics.get(name)) is not None:
            yield from self._copies(name, topic, self._brokers_wanted())
            return
        named = INTERNAL[name] | {UNCLEAN.what: UNCLEAN.what}
        said = {what: min(found.values(), key=_low_first) for what, setting in named.items()
                if (found := self._f.setting(setting))}
        if REPLICATION.what not in said:
            yield self._unknown(REPLICATION, name, self._brokers_wanted())
            return
        replicas = int(said.pop(REPLICATION.what))
        made = TopicFacts(partitions=1, replicas=replicas, in_sync=replicas, leaderless=0, config=said)
        for finding in self._copies(name, made, self._brokers_wanted()):
            mend = f"{named[finding.check]} in server.properties of each broker, before {name} is made"
            yield replace(finding, found=f"{finding.found} (not made yet)", mend=mend if finding.mend else "")

    def _brokers_wanted(self) -> int:
        return min(REPLICAS, max(1, self._brokers))

    # ---- topics ---------------------------------------------------------------------------------------------------
    def of_topics(self) -> Iterator[Finding]:
        """Judge every topic of this system."""
        for name, declared in self._declared.items():
            if name in self._f.hidden:
                continue  # said with what this client may do
            topic = self._f.topics.get(name)
            if topic is None:
                yield self._bad(EXISTS, name, "missing", EXISTS.expected, "deskrisk topics create")
                continue
            expected = self._s.partitions if declared.partitions == "data" else 1
            yield self._ok(PARTITIONS, name, topic.partitions) if topic.partitions == expected else self._bad(
                PARTITIONS, name, topic.partitions, expected, "deskrisk repartition, or DESKRISK_PARTITIONS as it is")
            yield from self._copies(name, topic, self._replicas)
            yield from self._kept(name, declared, topic)

    def _copies(self, name: str, topic: TopicFacts, wanted: int) -> Iterator[Finding]:
        if topic.leaderless:
            yield self._bad(LEADERS, name, f"{topic.leaderless} partitions without one", "one each", BACK)
        if topic.replicas < wanted:
            yield self._bad(REPLICATION, name, topic.replicas, wanted, self._command(
                "kafka-reassign-partitions", f"--execute --reassignment-json-file PLAN (on {wanted} brokers each)"))
        elif topic.replicas < REPLICAS:
            yield self._bad(REPLICATION, name, topic.replicas, REPLICAS,
                            "more brokers, and DESKRISK_REPLICATION not below three", short=True)
        else:
            yield self._ok(REPLICATION, name, topic.replicas)
        yield from self._in_sync(name, topic)
        found = None if topic.config is None else topic.config.get(UNCLEAN.what)
        if found is None:
            yield self._unknown(UNCLEAN, name, "false")
        else:
            yield self._ok(UNCLEAN, name, found) if found == "false" else self._bad(
                UNCLEAN, name, found, "false", self._set(name, UNCLEAN.what, "false"))

    def _in_sync(self, name: str, topic: TopicFacts) -> Iterator[Finding]:
        least, wanted = None if topic.config is None else topic.config.get(IN_SYNC.what), in_sync(topic.replicas)
        if least is None:
            yield self._unknown(IN_SYNC, name, wanted)
            return
        mend = self._set(name, IN_SYNC.what, wanted)
        if int(least) > topic.in_sync:
            yield self._bad(IN_SYNC_NOW, name, f"{topic.in_sync}, so that nothing can be written",
                            f"{least} or more", mend if int(least) > topic.replicas else BACK)
        if int(least) == wanted:
            yield self._ok(IN_SYNC, name, least) if wanted >= REPLICAS - 1 else self._bad(
                IN_SYNC, name, least, REPLICAS - 1, "three replicas", short=True)
        else:
            yield self._bad(IN_SYNC, name, least, wanted, mend)

    def _kept(self, name: str, declared: Topic, topic: TopicFacts) -> Iterator[Finding]:
        horizon = self._s.horizon_ms
        policy = "compact" if declared.compact else "delete"
        yield from self._config(POLICY, name, topic, policy, lambda found: found == policy)
        if declared.compact:
            lag = declared.compaction_lag_ms(horizon)
            if lag:
                yield from self._config(LAG, name, topic, lag, lambda found: int(found) >= lag)
            yield from self._config(DELETIONS, name, topic, DAY_MS, lambda found: int(found) >= DAY_MS)
        elif not declared.passing:
            yield from self._config(RETENTION, name, topic, horizon,
                                    lambda found: int(found) == -1 or int(found) >= horizon)
            yield from self._config(RETAINED, name, topic, -1, lambda found: int(found) == -1)
        if declared.written:
            yield from self._config(SIZE, name, topic, BATCH_BYTES_MAX, lambda found: int(found) >= BATCH_BYTES_MAX)

    def _config(self, check: Check, name: str, topic: TopicFacts, wanted: object,
                good: Callable[[str], bool]) -> Iterator[Finding]:
        found = None if topic.config is None else topic.config.get(check.what)
        if found is None:
            yield self._unknown(check, name, wanted)
        elif good(found):
            yield self._ok(check, name, found)
        else:
            yield self._bad(check, name, found, wanted, self._set(name, check.what, wanted))

    # ---- what this client may do ----------------------------------------------------------------------------------
    def _of_rights(self) -> Iterator[Finding]:
        for name, declared in self._declared.items():
            needed = {"Read", "Describe"} | ({"Write"} if declared.written or declared is TRADES else set())
            topic = self._f.topics.get(name)
            if name in self._f.hidden:
                yield self._denied(TOPIC_ACL, f"topic {name}", needed)
            elif topic is not None:
                yield from self._rights(TOPIC_ACL, f"topic {name}", topic.may, needed)
        for group, may in self._f.groups.items():
            yield from self._rights(GROUP_ACL, f"group {group}", may, {"Read"})
        for name, write in self._f.transactional.items():
            may = None if write is None else frozenset({"Write"} if write else ())
            yield from self._rights(TRANSACTION_ACL, f"transactional-id {name}", may, {"Write"})

    def _rights(self, check: Check, where: str, may: frozenset[str] | None, needed: set[str]) -> Iterator[Finding]:
        if may is None:
            yield self._unknown(check, where, ", ".join(sorted(needed)))
        elif needed - may:
            yield self._denied(check, where, needed - may)
        else:
            yield self._ok(check, where, ", ".join(sorted(needed)))

    def _denied(self, check: Check, where: str, denied: set[str]) -> Finding:
        kind, _, name = where.partition(" ")
        operations = " ".join(f"--operation {operation}" for operation in sorted(denied))
        return self._bad(check, where, f"denied: {', '.join(sorted(denied))}", "allowed", self._command(
            "kafka-acls", f"--add --allow-principal User:NAME {operations} --{kind} {name}"))

    # ---- clocks ---------------------------------------------------------------------------------------------------
    def _of_clocks(self) -> Finding:
        clock: Clock | None = self._f.clock
        if clock is None:
            return Finding(CLOCKS.what, "", State.UNKNOWN, "no transaction on the changelog says it",
                           CLOCKS.expected, str(CLOCKS.promise))
        ahead = clock.ended_ms - clock.written_ms
        found = f"the newest transaction ended {ahead / 1000:+.3f} s (broker's clock) after its last record (worker's)"
        if -BEHIND_MS <= ahead <= AHEAD_MS:
            return self._ok(CLOCKS, "", found)
        return self._bad(CLOCKS, "", found, CLOCKS.expected, "NTP (chrony) on brokers and workers")


async def look(settings: Settings) -> ClusterFacts:
    """Return what the cluster of some settings says of itself and of what this system uses."""
    group = settings.group("positions")
    topics = settings.topics()
    return await look_at(
        settings.client(), list(topics.values()), [settings.group(role) for role in ROLES],
        [*(owner_id(group, p) for p in range(settings.partitions)),
         *(writer_id(settings, topic) for topic in ("limits", "controls"))], topics[POSITIONS_CHANGELOG.name])


async def examine_cluster(settings: Settings) -> list[Finding]:
    """Return how every check of the cluster came out."""
    try:
        facts = await look(settings)
    except (KafkaError, OSError, TimeoutError) as error:
        return [Finding(REACHED.what, "", State.WRONG, f"{settings.brokers}: {error or type(error).__name__}",
                        "an answer", str(REACHED.promise), "DESKRISK_BROKERS, the network, or the brokers")]
    return Judge(settings, facts).findings()


async def examine_topics(settings: Settings) -> list[Finding]:
    """Return what is wrong with the settings of the topics that exist."""
    return [f for f in Judge(settings, await look(settings)).of_topics() if f.state is State.WRONG]


def failed(findings: Sequence[Finding], strict: bool) -> bool:
    """Return whether a command that found this ends with an error; where strict, also by what is short or unknown."""
    bad = {State.WRONG, State.SHORT, State.UNKNOWN} if strict else {State.WRONG}
    return any(finding.state in bad for finding in findings)


def counted(findings: Sequence[Finding]) -> Mapping[str, int]:
    """Return how many checks came out how."""
    return {state: sum(f.state is state for f in findings) for state in State}

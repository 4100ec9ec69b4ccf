"""All settings, from ``DESKRISK_*`` environment variables and command-line options; bounds are checked here."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.gate.limit_nodes import ACCOUNT_GROUPS, INSTRUMENT_GROUPS, ORDER_GROUPS
from models.gate.state import ACCOUNTS, INSTRUMENTS, LEVELS_MAX
from models.reference import LEVELS
from models.trading_day import TradingDay
from schemas.topics import TOPICS, topic_name
from schemas.units import NS_PER_MS
from tables.kafka import KafkaClient

#: the machine's memory as a folder: a file there waits for no disk
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHARED_MEMORY = Path("/dev/shm")
Role = Literal["positions", "marks", "risk", "gate"]
ROLES: tuple[Role, ...] = ("positions", "marks", "risk", "gate")
PREFIX = "DESKRISK_"
#: variables of that prefix that are no settings: of commands that ask a gateway, of the embedded broker, of tests
BESIDE = ("GATEWAY_URL", "CACHE", "SEED", "SEEDS", "PROFILE", "FAULT", "SOAK_MINUTES", "BENCH_TRADES")


class Settings(BaseSettings):
    """Everything a process may be told. Secrets come from the environment only and are never printed."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    brokers: str | None = Field(None, description="Kafka bootstrap servers; empty: the embedded broker (demo, up)")
    prefix: str = Field("", description="in front of every topic and group name")
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(8, description="partitions of the data topics")
    replication: Annotated[int, Field(ge=1, le=9)] | None = Field(
        None, description="replicas of each topic that is created; none: three, or as many as there are brokers")
    rewind_horizon_hours: Annotated[float, Field(gt=0)] = Field(24.0, description="how far a rewind may go back")
    data_dir: Path = Field(Path("data"), description="local stores, one folder a partition")
    standby: bool = Field(
        False, description="role positions: follow the partitions of other workers into the local stores, for a quick "
                           "takeover; each worker needs a data_dir of its own")
    base_currency: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")] = Field(
        "USD", description="currency of the firm node and the cross-cutting groupings")
    day_start: str = Field("00:00", description="local time at which a trading day begins (roll, daily limits)")
    day_zone: str = Field("UTC", description="time zone of `day_start`, as IANA names it")
    levels: Annotated[tuple[str, ...], NoDecode] = Field(
        LEVELS, description="hierarchy above the position, bottom up, the firm last")
    trade_ids_per_partition: Annotated[int, Field(ge=4096, le=1 << 24)] = Field(
        131_072, description="trade ids kept for deduplication, corrections and re-ordering, per partition")
    lateness_ms: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        2_000, description="how late a trade may be and still be folded in its place")
    future_ms: Annotated[int, Field(ge=0, le=86_400_000)] = Field(
        60_000, description="how far a record may be dated ahead of the clock that receives it; what lies further "
                            "ahead, or before 2000, is `bad_field`")
    surface_age_s: Annotated[float, Field(gt=0)] = Field(
        86_400.0, description="Greeks, and values, that rest on a surface or curve of longer ago are stale; orders "
                              "that would be held against limits by them are refused (STALE_PRICE)")
    quote_lateness_ms: Annotated[int, Field(ge=0)] = Field(2_000, description="how late a quote may be uncounted")
    history: str | None = Field(
        None, description="daily prices behind VaR and factors: .csv, .parquet or clickhouse://...?table=history")
    scenario_volatility: Literal["historical", "current"] = Field(
        "historical", description="volatility of the VaR scenarios: of their days, or scaled to today's (EWMA 0.94)")
    var_horizon_days: Annotated[int, Field(ge=1, le=60)] = Field(
        1, description="days in a row that make a scenario of historical VaR, overlapping")
    participation: Annotated[float, Field(gt=0, le=1)] = Field(
        0.20, description="share of the average daily volume that liquidating may take")
    session_timeout_s: Annotated[float, Field(ge=2, le=60)] = Field(6.0, description="after which a dead worker is out")
    instance: str | None = Field(None, description="static group membership; unique per worker process")
    gate_socket: Path | None = Field(None, description="Unix socket of the local gate (role gate); none: off")
    gate_journal: Path | None = Field(
        None, description="folder in which a gate with a socket or HTTP keeps what it answered until the log has it; "
                          "none: in the machine's memory (/dev/shm) where there is one, else in `data_dir`")
    gate_write_down_s: Annotated[float, Field(gt=0)] = Field(
        20.0, description="a gate writes down what works and what its day has come to this often: who takes over reads "
                          "the log of decisions since")
    gate_takes_last: bool = Field(
        False, description="a gate takes orders against a mark of quality `last` (nobody quotes, the price is that of "
                           "the last trade); otherwise they are STALE_PRICE")
    self_match: Literal["account", "owner"] = Field(
        "account", description="whose working orders an order may not trade against: its account's, or those of all "
                               "accounts of its owner (`Account.owner`) that the same gate decides")
    gate_accounts: Annotated[int, Field(ge=1, le=1 << 18)] = Field(
        ACCOUNTS, description="accounts that a gate has room for; orders of one more are refused (NO_ROOM), and alerts "
                              "tell before and when it is so (`gate_accounts`); one more takes some 4 kB")
    gate_instruments: Annotated[int, Field(ge=1, le=1 << 17)] = Field(
        INSTRUMENTS, description="as `gate_accounts`, of instruments (`gate_instruments`)")
    gate_realtime: bool = Field(True, description="a gate with a socket or HTTP of its own runs at real-time priority "
                                "where the system permits")
    gate_http_host: str = Field("127.0.0.1", description="address the gate of a worker listens on over HTTP; beyond "
                                "loopback only with api_tokens")
    gate_http_port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        None, description="port of the gate over HTTP (role gate); 0: any free one; none: off")
    metrics_port: int | None = Field(None, description="Prometheus port of a worker, loopback, with `/health/ready` "
                                     "beside `/metrics`; none: off")
    restarts: Annotated[int, Field(ge=0)] = Field(
        0, description="how often its supervisor has started this process again; set by the supervisor")
    say_reads: bool = Field(
        False, description="every role says on the topic `reads` how far it has read: for rehearsals, which wait by it")
    gateway_host: str = Field(
        "127.0.0.1", description="address the gateway listens on; beyond loopback only with api_tokens")
    gateway_port: Annotated[int, Field(ge=0, le=65_535)] = Field(8321, description="0: any free port")
    api_tokens: SecretStr | None = Field(
        None, description="token:user:role+role:node+node;until=TIME,... who may read those nodes (none: the firm) "
                          "and, with role risk, write there over HTTP; empty: no writes. Until a time (RFC 3339, or a "
                          "date: the end of that day, UTC) the token is good; without ;until= it does not end")
    api_writes_per_s: Annotated[float, Field(gt=0)] = Field(
        20.0, description="writes, and beside them halts, that one user may make a second; ten seconds of them at once")
    api_heavy_reads_per_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="what-ifs, decisions, positions, snapshots and facts that one user may ask for a second")
    api_streams_max: Annotated[int, Field(ge=1)] = Field(500, description="streams that one user may have open")
    api_connections_max: Annotated[int, Field(ge=10)] = Field(
        4_000, description="connections to a gateway; one beyond is answered 503")
    api_open_reads: bool = Field(
        False, description="with api_tokens: only writes need one; for a gateway on the loopback address")
    api_token: SecretStr | None = Field(None, description="one's own token, for commands that ask a gateway")
    clickhouse_url: SecretStr | None = Field(
        None, description="clickhouse://user:password@host:9000/db; empty: embedded chDB (demo, up)")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @field_validator("levels", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Take names with commas between them, as well as a list of JSON."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError as error:
                raise ValueError(f"expected names with commas between them, was {value!r}") from error
        return [name.strip() for name in value.split(",")]

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.levels[-1] != "firm" or len(set(self.levels)) != len(self.levels) or "fund" not in self.levels:
            raise ValueError("levels: expected distinct names, bottom up, with 'fund' and ending in 'firm', "
                             f"was {self.levels}")
        if len(self.levels) > LEVELS_MAX + 1:
            raise ValueError(f"levels: expected at most {LEVELS_MAX} below the firm, was {self.levels}")
        beside = set(self.levels[:-1]) & {"all", "order", "account", *ACCOUNT_GROUPS, *ORDER_GROUPS, *INSTRUMENT_GROUPS}
        if beside or not all(name.isidentifier() for name in self.levels):
            raise ValueError("levels: expected names of letters, digits and _ that no grouping beside the tree has, "
                             f"was {self.levels}")
        self.trading_day()
        for name, host in (("gateway_host", self.gateway_host), ("gate_http_host", self.gate_http_host)):
            if host not in LOOPBACK and not self.api_tokens:
                raise ValueError(f"{name}: expected a loopback address where no api_tokens are set, was {host!r}")
            if host not in LOOPBACK and self.api_open_reads:
                raise ValueError(f"{name}: expected a loopback address where api_open_reads is set, was {host!r}")
        return self

    def goes_first(self, role: Role) -> bool:
        """Return whether a worker of a role asks for real-time priority: somebody waits for each of its answers."""
        doors = (self.gate_socket, self.gate_http_port)
        return role == "gate" and self.gate_realtime and any(door is not None for door in doors)

    def journal_dir(self) -> Path:
        """Return where a gate keeps what it answered."""
        if self.gate_journal is not None:
            return self.gate_journal
        if not os.access(SHARED_MEMORY, os.W_OK):
            return self.data_dir / f"{self.prefix}gate-journal"
        whose = hashlib.sha256(f"{self.brokers} {self.prefix} {self.data_dir.resolve()}".encode()).hexdigest()
        return SHARED_MEMORY / f"deskrisk-{os.getuid()}-{whose[:16]}"

    def trading_day(self) -> TradingDay:
        """Return when days begin."""
        return TradingDay(self.day_start, self.day_zone)

    def client(self) -> KafkaClient:
        """Return how to talk to Kafka."""
        if not self.brokers:
            raise ValueError("brokers: expected host:port (--brokers or DESKRISK_BROKERS), was empty")
        return KafkaClient(
            brokers=self.brokers, security_protocol=self.security_protocol, sasl_mechanism=self.sasl_mechanism,
            sasl_username=self.sasl_username,
            sasl_password=self.sasl_password.get_secret_value() if self.sasl_password else None,
            ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)

    def topics(self) -> dict[str, str]:
        """Return the broker's name of every topic."""
        return {t.name: topic_name(self.prefix, t) for t in TOPICS}

    @property
    def horizon_ms(self) -> int:
        """How far a rewind may go back, ms."""
        return int(self.rewind_horizon_hours * 3_600_000)

    @property
    def surface_age_ns(self) -> int:
        """How old surfaces and curves may be, ns."""
        return int(self.surface_age_s * 1e9)

    @property
    def future_ns(self) -> int:
        """How far a record may be dated ahead, ns."""
        return self.future_ms * NS_PER_MS

    def group(self, role: str) -> str:
        """Return the consumer group of a role."""
        return f"{self.prefix}deskrisk-{role}"


#: settings that are never printed
SECRETS = frozenset(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each ``DESKRISK_`` variable that nobody reads, with the nearest one that somebody does."""
    # Kubernetes tells every container of a namespace where its services are
    of_services = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP)(_\w+)?$")
    known = sorted(PREFIX + name.upper() for name in (*Settings.model_fields, *BESIDE))
    out = []
    for name in sorted(n for n in environment if n.upper().startswith(PREFIX) and n.upper() not in known
                       and not of_services.search(n)):
        near = get_close_matches(name.upper(), known, 1)
        out.append(f"expected a setting (docs/reference/settings.md){f', the nearest is {near[0]}' if near else ''}, "
                   f"was {name}")
    return out

"""The analysts' tables, and how records become their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from models.corporate_actions import effective_ns
from models.gate.state import EFFECTS
from models.trade_decode import check_trade
from schemas.codec import decoder_of, records_in, trade_decoder
from schemas.corporate import CorporateAction
from schemas.nodes import Risk
from schemas.records import Alert, Decision, Position
from schemas.units import TS_END
from tables.kafka import owner_partition

DATABASE = "deskrisk"
_position, _risk, _decision, _alert = (
    decoder_of(Position), decoder_of(Risk), decoder_of(Decision), decoder_of(Alert))
_action = decoder_of(CorporateAction)
Row = tuple[Any, ...]

DECISION_COLUMNS = (
    "partition", "offset", "order_id", "ref_order_id", "account", "instrument", "trader", "side", "action", "quantity",
    "price", "venue", "algo_id", "outcome", "codes", "measured", "limits", "limit_ids", "nodes", "warnings", *EFFECTS,
    "limits_version", "snapshot_id", "ts_decision", "service_ns")
ALERT_COLUMNS = (
    "partition", "offset", "alert_id", "kind", "node", "metric", "value", "limit_value", "utilisation", "limit_id",
    "limits_version", "cause_ts", "raised_ts", "escalated", "ack_by", "note")
RISK_ADDED = ("delta", "gamma", "vega", "theta", "rho", "var_95", "var_99", "es_97_5",
              "carry", "funding", "interest")
#: how many positions have no P&L, and none of the day: why a figure of a node is null
RISK_COUNTS = ("pnl_unknown", "day_unknown")
#: figures that a record carries as null where they are unknown, by table: no column of them takes 0 for it
UNKNOWN_IS_NULL = {
    "positions": ("average_price", "realised_pnl", "fifo_realised_pnl", "break_even_price"),
    "risk": ("realised", "unrealised", "day", "price", "fx", "fees", "total", "gross", "net", "long", "short",
             *RISK_ADDED),
    "decisions": EFFECTS,
    "alerts": ("value", "limit_value", "utilisation"),
}
TABLES = ("trades", "positions", "risk", "decisions", "alerts", "corporate_actions")
DDL = (
    f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.trades (
  partition UInt16, offset UInt64, idx UInt32, trade_id String, account LowCardinality(String),
  instrument LowCardinality(String), side LowCardinality(String), quantity Decimal(38, 12), price Decimal(38, 12),
  ts_event_ns Int64, ts_event DateTime64(6, 'UTC'), action LowCardinality(String), ref_trade_id String,
  order_id String, trader LowCardinality(String), counterparty LowCardinality(String), venue LowCardinality(String)
) ENGINE = ReplacingMergeTree ORDER BY (account, instrument, ts_event, partition, offset, idx)""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.positions (
  partition UInt16, offset UInt64, account LowCardinality(String), instrument LowCardinality(String),
  quantity Decimal(38, 12), average_price Nullable(Float64), realised_pnl Nullable(Float64),
  fifo_realised_pnl Nullable(Float64), break_even_price Nullable(Float64), currency LowCardinality(String),
  fees Map(String, Float64), trades UInt64,
  as_of_partition UInt16, as_of_offset Int64, revision UInt64, book LowCardinality(String),
  desk LowCardinality(String), strategy LowCardinality(String), fund LowCardinality(String), last_ts_event_ns Int64
) ENGINE = ReplacingMergeTree ORDER BY (account, instrument, partition, offset)""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.risk (
  partition UInt16, offset UInt64, node LowCardinality(String), ts DateTime64(3, 'UTC'), snapshot_id Int64,
  base_currency LowCardinality(String), realised Nullable(Float64), unrealised Nullable(Float64),
  day Nullable(Float64), price Nullable(Float64), fx Nullable(Float64), fees Nullable(Float64),
  total Nullable(Float64), gross Nullable(Float64), net Nullable(Float64), long Nullable(Float64),
  short Nullable(Float64), positions UInt32, unpriced UInt32, stale UInt32
) ENGINE = ReplacingMergeTree ORDER BY (node, ts, partition, offset)
TTL toDateTime(ts) + INTERVAL 30 DAY""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.decisions (
  partition UInt16, offset UInt64, order_id String, ref_order_id String, account LowCardinality(String),
  instrument LowCardinality(String), trader LowCardinality(String), side LowCardinality(String),
  action LowCardinality(String), quantity Nullable(Decimal(38, 12)), price Nullable(Decimal(38, 12)),
  venue LowCardinality(String), algo_id LowCardinality(String), outcome LowCardinality(String),
  codes Array(LowCardinality(String)), measured Array(String), limits Array(String), limit_ids Array(String),
  nodes Array(String), warnings Array(LowCardinality(String)),
  {", ".join(f"{name} Nullable(Float64)" for name in EFFECTS)},
  limits_version Int64, snapshot_id Int64, ts_decision DateTime64(6, 'UTC'), service_ns Int64,
  INDEX by_order order_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree ORDER BY (account, ts_decision, partition, offset)""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.alerts (
  partition UInt16, offset UInt64, alert_id String, kind LowCardinality(String), node LowCardinality(String),
  metric LowCardinality(String), value Nullable(Float64), limit_value Nullable(Float64), utilisation Nullable(Float64),
  limit_id String, limits_version Int64, cause_ts DateTime64(6, 'UTC'), raised_ts DateTime64(6, 'UTC'),
  escalated Bool, ack_by String, note String
) ENGINE = ReplacingMergeTree ORDER BY (raised_ts, partition, offset)""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.corporate_actions (
  partition UInt16, offset UInt64, action_id String, instrument LowCardinality(String), kind LowCardinality(String),
  effective_ts DateTime64(6, 'UTC'), ratio Nullable(Decimal(38, 12)), amount Nullable(Decimal(38, 12)),
  currency LowCardinality(String), followed Bool
) ENGINE = ReplacingMergeTree ORDER BY (instrument, effective_ts, partition, offset)""",
    # a table that an earlier version made gets what later ones added
    f"ALTER TABLE {DATABASE}.positions ADD COLUMN IF NOT EXISTS funding Map(String, Float64)",
    *(f"ALTER TABLE {DATABASE}.risk ADD COLUMN IF NOT EXISTS {name} Nullable(Float64)" for name in RISK_ADDED),
    *(f"ALTER TABLE {DATABASE}.risk ADD COLUMN IF NOT EXISTS {name} Nullable(UInt32)" for name in RISK_COUNTS),
    f"ALTER TABLE {DATABASE}.risk ADD COLUMN IF NOT EXISTS without_rate LowCardinality(String)",
    # the largest offset says where to go on: a block that a power cut takes, and the next one not, nobody would miss
    *(f"ALTER TABLE {DATABASE}.{name} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1"
      for name in TABLES),
    # a column that is of this type already is left as it is
    *(f"ALTER TABLE {DATABASE}.{table} " + ", ".join(f"MODIFY COLUMN {name} Nullable(Float64)" for name in names)
      for table, names in UNKNOWN_IS_NULL.items()),
)


@dataclass(frozen=True)
class SinkTable:
    """One topic's table: its columns, its rows of a record, and how rows are thinned out."""

    topic: str
    name: str
    columns: tuple[str, ...]
    #: partition, offset, value, and the latest time that the record may carry
    rows_of: Callable[[int, int, bytes, int], list[Row]]
    #: rows with an equal key within one batch and this period are one row, the newest; None: keep all
    thin_key: Callable[[Row], Any] | None = None


def _time(ns: int) -> datetime:
    """Return a time for a column.

    Raises
    ------
    ValueError
        The column cannot hold it; the store would write another one.
    """
    if not 0 <= ns < TS_END:
        raise ValueError(f"time: expected one from 1970 to before 2262, was {ns}")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def trade_rows(partitions: int) -> Callable[[int, int, bytes, int], list[Row]]:
    """Return the reader of `trades`; records in a partition other than their account's are forwarded copies' origins.

    They are written once, where their account lives.
    """
    def rows_of(partition: int, offset: int, value: bytes, latest_ns: int = TS_END - 1) -> list[Row]:
        rows: list[Row] = []
        try:
            raws = records_in(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return rows  # on the quarantine topic
        for index, raw in enumerate(raws):
            try:
                t = trade_decoder.decode(raw)
                _, _, ns = check_trade(t, latest_ns)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                continue  # on the quarantine topic
            if owner_partition(t.account, partitions) != partition:
                continue
            rows.append((partition, offset, index, t.trade_id, t.account, t.instrument, t.side.lower(), t.quantity,
                         t.price, ns, _time(ns), t.action or "new", t.ref_trade_id or "", t.order_id or "",
                         t.trader or "", t.counterparty or "", t.venue or ""))
        return rows
    return rows_of


def _fits(value: Decimal) -> bool:
    return value.is_finite() and abs(value) < Decimal(10) ** 25


def position_rows(partition: int, offset: int, value: bytes, _: int = 0) -> list[Row]:
    """Return the row of a `positions` record."""
    p = _position.decode(value)
    return [(partition, offset, p.account, p.instrument, Decimal(p.quantity), p.average_price, p.realised_pnl,
             p.fifo.realised_pnl, p.break_even_price, p.currency, p.fees, p.trades, p.as_of.partition,
             p.as_of.offset, p.revision, p.book, p.desk, p.strategy, p.fund, p.last_ts_event, p.funding)]


def risk_rows(partition: int, offset: int, value: bytes, _: int = 0) -> list[Row]:
    """Return the row of a `risk` record (a node's models repeat its row at their own pace: not kept twice)."""
    r = _risk.decode(value)
    if r.top is not None:
        return []
    greeks, var = r.greeks or {}, (r.models or {}).get("var_hist", {})
    return [(partition, offset, r.node, _time(r.ts), r.snapshot_id,
             r.base_currency, r.pnl.realised, r.pnl.unrealised, r.pnl.day, r.pnl.price, r.pnl.fx, r.pnl.fees,
             r.pnl.total, r.exposure.gross, r.exposure.net, r.exposure.long, r.exposure.short, r.exposure.positions,
             r.quality.unpriced, r.quality.stale, *(greeks.get(g) for g in ("delta", "gamma", "vega", "theta", "rho")),
             var.get("var_95"), var.get("var_99"), var.get("es_97_5"), r.pnl.carry, r.pnl.funding,
             r.pnl.interest, r.quality.pnl_unknown, r.quality.day_unknown, r.quality.without_rate or "")]


def decision_rows(partition: int, offset: int, value: bytes, _: int = 0) -> list[Row]:
    """Return the row of a `decisions` record, without what the gate saw: `deskrisk decisions explain` reads the log."""
    d = _decision.decode(value)
    o = d.order
    numbers = [None if x is None or not _fits(x) else x for x in ((o.quantity, o.price) if o else (None, None))]
    ref, trader, side, action, venue, algo = (
        (o.ref_order_id or "", o.trader, o.side, o.action, o.venue or "", o.algo_id or "") if o else ("",) * 6)
    return [(partition, offset, d.order_id, ref, d.account, d.instrument, trader, side, action, *numbers, venue, algo,
             d.outcome, [r.code for r in d.reasons], [r.measured for r in d.reasons], [r.limit for r in d.reasons],
             [r.limit_id or "" for r in d.reasons], [r.node or "" for r in d.reasons], [r.code for r in d.warnings],
             *(d.effect.get(name) for name in EFFECTS), d.limits_version, d.snapshot_id, _time(d.ts_decision),
             d.service_ns)]


def alert_rows(partition: int, offset: int, value: bytes, _: int = 0) -> list[Row]:
    """Return the row of an `alerts` record; an acknowledgement is a row of its own, with who has seen it."""
    a = _alert.decode(value)
    return [(partition, offset, a.alert_id, a.kind, a.node, a.metric, a.value, a.limit, a.utilisation, a.limit_id or "",
             a.limits_version, _time(a.cause_ts), _time(a.raised_ts), a.escalated, a.ack_by or "", a.note or "")]


def action_rows(partition: int, offset: int, value: bytes, _: int = 0) -> list[Row]:
    """Return the row of a `corporate.actions` record; one that was followed is written again, and said to be."""
    a = _action.decode(value)
    return [(partition, offset, a.action_id, a.instrument, a.kind, _time(effective_ns(a)), a.ratio, a.amount,
             a.currency or "", a.followed_ts is not None)]


def sink_tables(partitions: int) -> tuple[SinkTable, ...]:
    """Return every table the sink fills."""
    return (
        SinkTable("trades", f"{DATABASE}.trades", (
            "partition", "offset", "idx", "trade_id", "account", "instrument", "side", "quantity", "price",
            "ts_event_ns", "ts_event", "action", "ref_trade_id", "order_id", "trader", "counterparty", "venue"),
            trade_rows(partitions)),
        SinkTable("positions", f"{DATABASE}.positions", (
            "partition", "offset", "account", "instrument", "quantity", "average_price", "realised_pnl",
            "fifo_realised_pnl", "break_even_price", "currency", "fees", "trades", "as_of_partition", "as_of_offset",
            "revision", "book", "desk", "strategy", "fund", "last_ts_event_ns", "funding"), position_rows,
            thin_key=lambda row: (row[2], row[3])),
        SinkTable("risk", f"{DATABASE}.risk", (
            "partition", "offset", "node", "ts", "snapshot_id", "base_currency", "realised", "unrealised", "day",
            "price", "fx", "fees", "total", "gross", "net", "long", "short", "positions", "unpriced", "stale",
            *RISK_ADDED, *RISK_COUNTS, "without_rate"),
            risk_rows, thin_key=lambda row: row[2]),
        SinkTable("decisions", f"{DATABASE}.decisions", DECISION_COLUMNS, decision_rows),
        SinkTable("alerts", f"{DATABASE}.alerts", ALERT_COLUMNS, alert_rows),
        SinkTable("corporate.actions", f"{DATABASE}.corporate_actions", (
            "partition", "offset", "action_id", "instrument", "kind", "effective_ts", "ratio", "amount", "currency",
            "followed"), action_rows),
    )

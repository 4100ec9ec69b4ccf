"""A gate takes partitions over: what was written down of them, what their logs say since, executions since then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka.structs import TopicPartition

from agents.decision_log import DecisionLog
from agents.gate_changelog import GateChangelog, Kept
from agents.gate_watch import GateWatch
from agents.order_fills import OrderFills
from models.gate.book import GateBook
from models.gate.changes import put
from models.gate.executed_orders import OF_ACCOUNT
from models.gate.state import bucket_ns
from schemas.gate_state import GateDay
from schemas.records import Decision
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.restore import ends_of, offsets_at, read_range

#: clocks of those who decide and of those who write may differ by so much
MARGIN_NS = 5_000_000_000


@dataclass
class TakenOver:
    """Where a gate goes on with its partitions."""

    #: of `orders` and `trades`
    next_offset: dict[TopicPartition, int]
    half_done: set[tuple[int, int, str]]
    accepted: dict[str, Decision]


class GateTakeOver:
    """Puts what others decided and counted into a gate."""

    def __init__(self, client: KafkaClient, topics: dict[str, str], gate: GateBook, watch: GateWatch, fills: OrderFills,
                 changelog: GateChangelog, partition_of: Callable[[str], int]) -> None:
        self._client, self._topics, self._gate, self._watch = client, topics, gate, watch
        self._fills, self._changelog, self._partition_of = fills, changelog, partition_of

    async def run(self, partitions: set[int], now_ns: int) -> TakenOver:
        """Take partitions over."""
        gate = self._gate
        kept = await self._changelog.read(partitions)
        found = DecisionLog(partitions, gate.day.begin_ns(now_ns), kept)
        read = await read_range(self._client, await self._starts(partitions, kept, now_ns), found.take)
        self._changelog.begin({tp.partition: position for tp, (position, _) in read.items()}, kept)
        for k in kept.values():
            self._put(k)
        gate.recount(found.today, now_ns, found.replaced, found.recent)
        self._remember(found.let_through)
        gate.flow.forget(partitions)
        for decision in (*found.recent, *found.today):
            self._watch.count(decision)
        begin: dict[int, int] = {p: k.mark.trades for p, k in kept.items() if k.mark is not None}
        for order_id, decision in found.accepted.items():
            if decision.order is None:
                continue
            gate.place(decision.order, decision.ts_decision, now_ns, found.earlier.get(order_id, ()),
                       found.executed.get(order_id, 0.0))
            p, first = self._partition_of(decision.account), found.fills_from[order_id]
            begin[p] = min(begin.get(p, first), first)
        for k in kept.values():
            for order in k.orders():
                self._fills.put_settled(order)
        gate.refresh(now_ns)
        orders = {TopicPartition(self._topics["orders"], p): found.next[p] for p in partitions}
        followed = await self._follow(partitions, begin, found)
        return TakenOver(orders | followed, found.half_done(), found.accepted)

    async def _starts(self, partitions: set[int], kept: dict[int, Kept], now_ns: int) -> dict[TopicPartition, int]:
        """Return from where on the log of decisions is read: windows of messages reach back before what was kept."""
        tps = {p: TopicPartition(self._topics["decisions"], p) for p in partitions}
        since_ms = (now_ns - self._longest_window_ns() - MARGIN_NS) // 1_000_000
        recent = await offsets_at(self._client, [tps[p] for p in kept], since_ms) if kept else {}
        starts = dict.fromkeys(tps.values(), 0)
        for p, k in kept.items():
            if k.mark is not None:
                starts[tps[p]] = min(recent.get(tps[p], k.mark.decisions), k.mark.decisions)
        return starts

    def _longest_window_ns(self) -> int:
        limits = (*self._gate.limits.values(), *(w.limit for w in self._watch.monitor.watches.values()))
        longest = max((x.window_ms or 0 for x in limits), default=0) * 1_000_000
        return longest + bucket_ns(longest)

    def _put(self, kept: Kept) -> None:
        """Put back what a day had come to, unless it has ended, and which ids were executed."""
        mark = kept.mark
        if mark is None:
            return
        for order_id in kept.executed():
            named = OF_ACCOUNT in order_id
            (self._gate.executed_elsewhere if named else self._gate.executed)[order_id] = None
        self._remember(kept.accepted(), written=True)
        if mark.day != self._gate.sums_of_day:
            return
        looked = self._gate.looked_ns()
        for entry in kept.day():
            put(self._gate, entry, isinstance(entry, GateDay) and looked.get(entry.trader or "", 0) > mark.ts)

    def _remember(self, let_through: Sequence[tuple[str, str]], written: bool = False) -> None:
        """Remember ids of orders that were let through: cancels may name them; ``written``: they are written down."""
        for account, order_id in let_through:
            if (place := self._gate.state.account_index.get(account)) is not None:
                self._gate.accepted.add(place, order_id, written)

    async def _follow(self, partitions: set[int], begin: dict[int, int], found: DecisionLog,
                      ) -> dict[TopicPartition, int]:
        """Read executions since then; return where following them goes on."""
        tps = {p: TopicPartition(self._topics["trades"], p) for p in partitions}
        ends = await ends_of(self._client, list(tps.values()))

        def on_trades(batch: RecordBatch) -> None:
            self._fills.follow(batch, found.fills_from)

        read = await read_range(self._client, {tp: begin.get(p, ends[tp]) for p, tp in tps.items()}, on_trades)
        return {tp: position for tp, (position, _) in read.items()}

"""Several gates tell each other on the topic `exposure` what they hold under nodes above their accounts."""

from __future__ import annotations

import numpy as np

from agents.ports import Publisher
from models.gate.book import GateBook
from models.gate.flow import Outcomes
from models.gate.other_gates import Own
from schemas.addresses import GateExposure
from schemas.codec import encode


class OtherGates:
    """Says under the lowest of its partitions what this gate holds, and takes in what others say under theirs.

    A partition has one owner: who takes it over says anew, or takes back, what was said under it before. A gate that
    owns all partitions says nothing.

    Parameters
    ----------
    partitions : of `orders`
    me : a name that no other process has, nor this one in another life
    """

    def __init__(self, gate: GateBook, publisher: Publisher, topic: str, partitions: int, me: str) -> None:
        self._gate, self._publisher, self._topic, self._partitions = gate, publisher, topic, partitions
        self._me = me
        self._owned: set[int] = set()
        #: what stands on the topic, and of what this gate sent the row it was
        self._said: dict[tuple[str, int], Own] = {}
        self._rows: dict[tuple[str, int], tuple[bytes, dict[str, Outcomes]]] = {}

    def take(self, record: GateExposure) -> None:
        """Take in what is said under a partition; of what this gate said itself, what it sent last stands."""
        if record.gate != self._me:
            outcomes = {length: Outcomes(*came) for length, came in record.outcomes.items()}
            own = self._said[record.node, record.partition] = Own(record.figures, record.windows, outcomes)
            self._rows.pop((record.node, record.partition), None)
            self._gate.set_other(record.node, record.partition, own)

    def gone(self, key: str) -> None:
        """Take in that nothing is said of a node under a partition any more."""
        node, _, partition = key.rpartition("|")
        if partition.isdigit() and int(partition) not in self._owned:
            self._said.pop((node, int(partition)), None)
            self._gate.set_other(node, int(partition), None)

    def own(self, partitions: set[int]) -> None:
        """Own these partitions from now on; what was said under others stands until their owner says anew."""
        lost, self._owned = self._owned - partitions, set(partitions)
        for (node, partition), own in self._said.items():
            if partition in lost:
                self._gate.set_other(node, partition, own)
        self._gate.set_mine(frozenset(partitions))

    def say(self, now_ns: int) -> None:
        """Send what has changed of what this gate holds."""
        if not self._owned:
            return
        under, gate = min(self._owned), self._gate
        wanted = {(name, under): row for name, row in self._rows_now(now_ns).items()}
        for place in [k for k in self._said if k[1] in self._owned and k not in wanted]:
            self._send(place, None)
            del self._said[place]
            self._rows.pop(place, None)
            gate.set_other(*place, None)
        for place, (row, outcomes) in wanted.items():
            if self._rows.get(place) != (row.tobytes(), outcomes):
                own = gate.own_of(gate.state.node(place[0]), row, outcomes)
                self._send(place, encode(GateExposure(
                    node=place[0], partition=under, gate=self._me, ts=now_ns, figures=own.figures, windows=own.windows,
                    outcomes={w: (o[0], o[1]) for w, o in own.outcomes.items()})))
                self._said[place], self._rows[place] = own, (row.tobytes(), outcomes)

    def _rows_now(self, now_ns: int) -> dict[str, tuple[np.ndarray, dict[str, Outcomes]]]:
        """Return by node what this gate holds and has counted, and what came of orders; it alone: nothing to tell."""
        if len(self._owned) == self._partitions:
            return {}
        names, flow = self._gate.state.node_names, self._gate.flow
        nodes, rows = self._gate.own_rows(now_ns)
        held = {names[node]: row for node, row in zip(nodes, rows, strict=True)}
        came = {node: outcomes for node in flow.watched if not node.startswith("account:")
                and (outcomes := flow.by_length(node, now_ns))}
        nothing = np.zeros(rows.shape[1])
        return {name: (held.get(name, nothing), came.get(name, {})) for name in [*held, *(came.keys() - held.keys())]}

    def _send(self, place: tuple[str, int], value: bytes | None) -> None:
        name, partition = place
        self._publisher.send(self._topic, f"{name}|{partition}".encode(), value, 0)

"""One client of the stream: what it has, and the frames that bring it to what the gateway has.

Nothing here waits, or knows of HTTP: `ClientView.step` returns what is to be sent now. A frame carries an ``id`` only
where a client that has it has everything up to that number: who resumes from an id misses nothing, and is sent a fact
twice rather than never (facts have numbers of their own).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.gateway.events import alert_event, breaker_event, risk_event
from app.gateway.lines import ScopeLines
from app.gateway.sight import Sight
from app.gateway.state import LADDER_COLUMNS, NODE_COLUMNS, Fact, GatewayState, encode_json
from models.reference import FIRM

#: frames go out this much earlier than their rate says, so that a turn that is nearly due is not missed
SLACK_S = 0.025
HEARTBEAT_S = 1.0
#: facts of the past that a client without a number gets
FACTS_FIRST = 1_000


def frame_of(event: str, data: Any) -> bytes:
    """Return an event as the stream carries it."""
    return f"event: {event}\ndata: ".encode() + encode_json(data) + b"\n\n"


class Frames:
    """Encodes what clients at the same point share.

    Parameters
    ----------
    fresh_ms : returns until when the gateway has followed its topics
    """

    def __init__(self, state: GatewayState, fresh_ms: Callable[[], int]) -> None:
        self.state, self.fresh_ms = state, fresh_ms
        self._held: dict[tuple[str, int, bool, tuple[str, ...], int], list[bytes]] = {}
        self._at = (-1, -1)

    def bodies(self, scope: str, sight: Sight) -> list[dict[str, Any]]:
        """Return the bodies of a scope's snapshot, one a table, as they may be read."""
        state = self.state
        view = state.view(scope)
        base = {"v": 1, "seq": state.seq, "t": self.fresh_ms(), "reset": True, "epoch": state.epoch}
        return [base | {"table": "position", "cols": LADDER_COLUMNS, "rows": state.rows_of(view, view.shown),
                        "total": view.total},
                base | {"table": "node", "cols": NODE_COLUMNS, "rows": state.node_rows(-1, scope, sight),
                        "children": state.children(scope)}]

    def since(self, scope: str, seq: int, traded: bool, sight: Sight) -> list[bytes]:
        """Return the frames from a number to now; those of trades alone go out between the whole ones."""
        state = self.state
        at = (state.seq, state.turns)
        if self._at != at:
            self._held.clear()
            self._at = at
        key = (scope, seq, traded, sight.nodes, sight.version)
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = self._encode(scope, seq, traded, sight)
        return found

    def _encode(self, scope: str, seq: int, traded: bool, sight: Sight) -> list[bytes]:
        state, out = self.state, []
        view = state.view(scope)
        base = {"v": 1, "seq": state.seq, "t": self.fresh_ms()}
        rows = state.rows_of(view, view.since(seq, traded))
        gone = [] if traded else view.gone(seq)
        if rows or gone or (not traded and view.resized > seq):
            out.append(frame_of("delta", base | {"table": "position", "cols": LADDER_COLUMNS, "rows": rows,
                                                 "del": gone, "total": view.total}))
        if not traded:
            nodes, ended = state.node_rows(seq, scope, sight), state.nodes_ended(seq, sight)
            if nodes or ended:
                out.append(frame_of("delta", base | {"table": "node", "cols": NODE_COLUMNS, "rows": nodes,
                                                     "del": ended}))
        return out


class ClientView:
    """What one client has of one scope.

    Parameters
    ----------
    rate : row frames a second
    last_id : of the last frame the client had, as it says; None: it had none
    nodes : that its user may read
    """

    def __init__(self, frames: Frames, scope: str, rate: float, last_id: str | None = None,
                 nodes: tuple[str, ...] = (FIRM,)) -> None:
        self.frames, self.state, self.scope, self.rate = frames, frames.state, scope, rate
        self._nodes = nodes
        sight = self.state.sights.of(nodes)
        #: as it was looked at last; who sees more than that, or less, is sent everything anew
        self._version = sight.version
        #: the scope lies outside of what may be read by now
        self.ended = False
        self._lines().watchers += 1
        self.state.follow(scope)
        since = resume_point(last_id, self.state.epoch, self.state.seq)
        if since is not None and since <= sight.changed_at and not sight.whole:
            since = None
        #: numbers up to which it has rows, rows of trades, and facts; None: it has nothing yet
        self.since: int | None = since
        self._traded = self._facts = since or 0
        self._models, self._next_rows, self._next_beat = -1, 0.0, 0.0

    def close(self) -> None:
        """Watch no longer."""
        self._lines().watchers -= 1

    def step(self, now: float) -> list[bytes]:
        """Return the frames that are due at a time (monotonic, seconds), in order; the client has them from then on."""
        state = self.state
        sight = state.sights.of(self._nodes)
        if not sight.sees(self.scope):
            self.ended = True
            return []
        lines = self._lines()
        out: list[bytes] = []
        began = self.since is None or self.since < lines.floor or self._facts < state.facts_floor
        if began or sight.version != self._version:
            self._version = sight.version
            out += self._all(sight)
            self._next_rows = now + 1.0 / self.rate - SLACK_S
        else:
            assert self.since is not None
            out += [fact_frame(f) for f in state.facts_seen(state.facts_since(self._facts), sight)]
            self._facts = state.seq
            if state.rows_seq <= self.since:
                self.since = self._traded = state.seq
            elif now >= self._next_rows:
                out += self.frames.since(self.scope, self.since, False, sight)
                self.since = self._traded = state.seq
                self._next_rows = now + 1.0 / self.rate - SLACK_S
            elif state.rows_seq > self._traded:
                out += self.frames.since(self.scope, self._traded, True, sight)
                self._traded = state.seq
        if out and self.since == state.seq:  # whole: who has this frame has all there is
            out[-1] = f"id: {state.epoch}-{state.seq}\n".encode() + out[-1]
        if (held := state.models_since(self.scope, self._models)) is not None:
            self._models = held[0]
            out.append(frame_of("risk", risk_event(held[1], state.seq)))
        return out

    def beat_due(self, now: float) -> bool:
        """Return whether a heartbeat is due; it counts as sent."""
        due = now >= self._next_beat
        if due:
            self._next_beat = now + HEARTBEAT_S
        return due

    def _lines(self) -> ScopeLines:
        return self.state.view(self.scope)

    def _all(self, sight: Sight) -> list[bytes]:
        """Return everything: rows, what is tripped, what stands, and the newest facts."""
        state = self.state
        out = [frame_of("snapshot", body) for body in self.frames.bodies(self.scope, sight)]
        facts, earlier = state.facts_before(state.seq + 1, FACTS_FIRST, sight)
        out += [fact_frame(f) for f in facts]
        # how many there are before the first of these: `GET /api/facts?before=` has those that are kept
        out.append(frame_of("facts", {"seq": state.seq, "sent": len(facts), "before": facts[0].seq if facts else None,
                                      "earlier": earlier, "more": earlier > 0, "forgotten": state.facts_floor > 0}))
        controls = [c for c in map(sight.control, state.controls.values()) if c is not None]
        out += [frame_of("breaker", breaker_event(control)) for control in controls]
        out += [frame_of("alert", alert_event(alert)) for alert in state.open_alerts() if sight.sees_alert(alert)]
        self.since = self._traded = self._facts = state.seq
        return out


def fact_frame(fact: Fact) -> bytes:
    """Return a fact as the stream carries it."""
    return frame_of(fact.event, fact.data)


def resume_point(last_id: str | None, epoch: str, seq: int) -> int | None:
    """Return the sequence number to go on from, or None where a snapshot is needed."""
    if last_id is None:
        return None
    had, _, number = last_id.rpartition("-")
    known = had == epoch and number.isascii() and number.isdigit() and len(number) < 20
    return int(number) if known and int(number) <= seq else None

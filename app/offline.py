"""Topics read once by a tool, by the rules of the stages: what those refuse is counted, and left out here too."""

from __future__ import annotations

import time
from collections import Counter

from agents.router import Place, Router
from app.settings import Settings
from models.reference import Reference
from schemas.codec import decoder_of
from schemas.corporate import CorporateAction
from schemas.nodes import MODELS_SUFFIX, Risk
from schemas.records import Account, External, Instrument, Mark, Position
from tables.kafka import owner_partition

_risk = decoder_of(Risk)


class Offline:
    """What tools read from topics: the newest good record of everything, and all statements.

    ``router`` takes the slices of the topics that were asked for.
    """

    def __init__(self, settings: Settings) -> None:
        #: records that were left out, by topic
        self.refused: Counter[str] = Counter()
        self.router = Router({name: topic for topic, name in settings.topics().items()}, self, "refused", None,
                             settings.future_ns)
        self.reference = Reference(lambda account: owner_partition(account, settings.partitions))
        #: by account and instrument: of two rows of a position the later one
        self.positions: dict[tuple[str, str], Position] = {}
        #: by key, as they stand on the topic
        self.rows: dict[str, Position] = {}
        self.marks: dict[str, Mark] = {}
        #: in the order of the log
        self.statements: list[External] = []
        #: nodes of risk by name
        self.nodes: dict[str, Risk] = {}

    def follow(self, *topics: str) -> Offline:
        """Take in the records of these topics, by their names in the contract."""
        router = self.router
        if "reference.instruments" in topics:  # like the stages: a withdrawn instrument keeps its terms
            router.subscribe("reference.instruments", Instrument, lambda r, _: self.reference.add_instrument(r))
        if "reference.accounts" in topics:
            router.subscribe("reference.accounts", Account, lambda r, _: self.reference.add_account(r))
        if "corporate.actions" in topics:
            self.reference.turn(time.time_ns())
            router.subscribe("corporate.actions", CorporateAction, lambda r, _: self.reference.add_action(r),
                             lambda at: self.reference.withdraw_action(*at.key.partition("|")[::2]))
        if "marks" in topics:
            router.subscribe("marks", Mark, lambda r, _: self.marks.__setitem__(r.instrument, r))
        if "positions.external" in topics:
            router.subscribe("positions.external", External, lambda r, _: self.statements.append(r), many=True)
        if "positions" in topics:
            router.subscribe("positions", Position, self._take_position, lambda at: self.rows.pop(at.key, None))
        if "risk" in topics:
            router.subscribe("risk", None, self._take_risk, lambda at: self.nodes.pop(at.key, None))
        return self

    def _take_position(self, p: Position, place: Place) -> None:
        self.rows[place.key] = p
        held = self.positions.get((p.account, p.instrument))
        if held is None or (p.as_of.offset, p.revision) >= (held.as_of.offset, held.revision):
            self.positions[p.account, p.instrument] = p

    def _take_risk(self, value: bytes, place: Place) -> None:
        if not place.key.endswith(MODELS_SUFFIX):
            self.nodes[place.key] = _risk.decode(value)

    # ---- counters of the router -------------------------------------------------------------------------------------
    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count a refused record."""
        self.refused[labels["topic"]] += int(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set nothing: a tool has no gauges."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Keep nothing: a tool has no distributions."""

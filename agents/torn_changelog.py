"""Says that a changelog ends with what is no whole transaction: to the log, the metrics and the people."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agents.ports import Clock, Counters, Publisher
from models.reference import FIRM
from schemas.codec import encode
from schemas.records import Alert
from tables.changelog import Batches

log = logging.getLogger(__name__)


def say_torn(found: Batches, partition: int, topics: Mapping[str, str], publisher: Publisher, clock: Clock,
             counters: Counters) -> None:
    """Say what of a partition is left out, and from where its trades are folded again."""
    now, name = clock(), f"positions-changelog {partition}"
    text = (f"{name}: {found.text()}: left out, trades are folded again from offset "
            f"{found.marker.offsets.get(topics['trades'], 0)}")
    log.error("%s", text)
    counters.add("changelog_records_left_out", found.left_out_records, partition=str(partition))
    # whoever takes over before it is mended says the same
    alert = Alert(alert_id=f"torn.{partition}.{found.position}", kind="torn_transaction", node=FIRM, metric=name,
                  value=float(found.left_out_records), limit=None, utilisation=None, cause_ts=now, raised_ts=now,
                  snapshot_id=0, note=text)
    publisher.send(topics["alerts"], alert.node.encode(), encode(alert))

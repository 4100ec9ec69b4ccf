"""Rows of the changelog of positions: none is larger than what a broker takes of a record, whatever a cut holds."""

from __future__ import annotations

from models.trade_columns import APPLIED
from tables.partition import Rows
from tests.folding import feed, new_partition, trade

#: what a broker takes of a record where nobody has said otherwise
RECORD_BYTES_MAX = 1_000_000
FILLS = 30_000
TS = 1_700_000_000_000_000_000


def applied(rows: Rows, kept: dict[bytes, bytes]) -> None:
    for key, value in rows:
        assert value is None or len(value) < RECORD_BYTES_MAX, (key, len(value))
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def test_a_backlog_of_fills_and_of_changes_to_them_is_cut_into_rows_that_a_broker_takes() -> None:
    part, kept = new_partition(), dict[bytes, bytes]()
    fees = [{"amount": "0.01", "currency": "EUR"}, {"amount": "-0.5", "currency": "USDT"}]
    assert set(feed(part, [trade(f"T{k}", "buy", "1", "1.1", TS + k, fees=fees) for k in range(FILLS)])) == {APPLIED}
    applied(part.cut(), kept)
    # every one of them is taken back by a correction: as many flags change as there are fills
    feed(part, [trade(f"C{k}", "buy", "2", "1.1", TS + k, action="correct", ref_trade_id=f"T{k}", fees=fees) for k in range(FILLS)],
         first_offset=FILLS)
    applied(part.cut(), kept)
    applied(part.cut(), kept)
    restored = new_partition()
    restored.restore(kept)
    assert restored.state_hash() == part.state_hash()
    # what was paid is known again, fill by fill: a bust of the last correction takes back its fees alone
    bust = [trade("B", "buy", "2", "1.1", TS + FILLS, action="bust", ref_trade_id=f"C{FILLS - 1}")]
    for one in (part, restored):
        feed(one, bust, first_offset=2 * FILLS)
    assert restored.state_hash() == part.state_hash()
    assert next(iter(restored.side.values())).fees == next(iter(part.side.values())).fees

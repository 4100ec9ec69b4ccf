"""F26, F22: a changelog cut at any row comes to its last whole batch; markers of an older version are followed."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agents.torn_changelog import say_torn
from schemas.codec import decoder_of
from schemas.records import Alert
from tables.changelog import Batches
from tables.partition import MARKER_KEY, Marker, Rows
from tables.writer import TornTransaction
from tests.faults.fake_broker import NEVER, Broker, Disk, Scheduler
from tests.faults.lives import Life

KEYS = [b"P%d" % k for k in range(6)]


def history(rng: np.random.Generator, batches: int) -> list[Rows]:
    """Return batches with tombstones among their rows; the first is of nothing, as a writer begins."""
    marker, found = Marker(), list[Rows]()
    found.append(marker.open_log())
    for n in range(batches):
        marker.offsets = {"trades": 10 * (n + 1)}
        chosen = rng.permutation(len(KEYS))[: int(rng.integers(0, len(KEYS) + 1))].tolist()
        found.append(marker.close([(KEYS[k], None if rng.random() < 0.3 else b"%d/%d" % (n, k)) for k in chosen]))
    return found


def read(rows: Rows, slice_size: int | None = None, into: Batches | None = None, first: int = 0) -> Batches:
    batches, size = into or Batches(), slice_size or max(len(rows), 1)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        batches.feed([k for k, _ in part], [v for _, v in part], range(first + start, first + start + len(part)))
    batches.finish(first + len(rows))
    return batches


def newest(rows: Rows) -> dict[bytes, bytes]:
    return {k: v for k, v in dict(rows).items() if v is not None and k != MARKER_KEY}


@pytest.mark.parametrize("seed", range(20))
def test_a_history_cut_at_any_row_comes_to_its_last_whole_batch(seed: int) -> None:
    whole = history(np.random.default_rng(seed), 8)
    rows = [row for batch in whole for row in batch]
    ends = np.cumsum([len(batch) for batch in whole]).tolist()
    for cut in range(len(rows) + 1):
        n = sum(end <= cut for end in ends)
        for size in (None, 1, 3):
            found = read(rows[:cut], size)
            assert found.live() == newest(rows[: ends[n - 1] if n else 0])
            assert found.marker.batch_id == n and found.marker.offsets == ({"trades": 10 * (n - 1)} if n > 1 else {})
            assert found.left_out_records == cut - (ends[n - 1] if n else 0)
            assert found.position == (ends[n - 1] if n else 0)


@pytest.mark.parametrize("seed", range(20))
def test_any_row_that_is_missing_leaves_its_batch_and_what_follows_out(seed: int) -> None:
    whole = history(np.random.default_rng(seed), 6)
    rows = [row for batch in whole for row in batch]
    ends = np.cumsum([len(batch) for batch in whole]).tolist()
    for gone in range(1, len(rows)):
        n = sum(end <= gone for end in ends)
        before, behind = rows[:gone], rows[gone + 1 :]
        found = Batches()
        read(before, into=found)
        found = read(behind, into=found, first=gone + 1)
        assert (found.live(), found.marker.batch_id) == (newest(rows[: ends[n - 1]]), n), gone
        assert found.left_out_records == len(rows) - 1 - ends[n - 1]
        # and whoever writes what was left out once more is followed, the torn one not
        again: Rows = Marker.unpack(found.marker.value).close([(k, found.live().get(k)) for k in found.left_out if k != MARKER_KEY])
        mended = read(again, into=found, first=len(rows))
        assert mended.left_out_records == 0 and mended.live() == newest(rows[: ends[n - 1]])


def test_the_last_batch_of_a_store_is_looked_at_on_the_log() -> None:
    whole = history(np.random.default_rng(1), 5)
    rows = [row for batch in whole for row in batch]
    position = len(rows) - len(whole[-1])
    stored = newest(rows[:position]) | {MARKER_KEY: cast(bytes, whole[-2][-1][1])}

    def go_on(log: Rows) -> Batches:
        batches = Batches(stored, position)
        return read(log[batches.begin :], into=batches, first=batches.begin)

    fresh = go_on(rows)
    assert not fresh.strayed and fresh.live() == newest(rows) and fresh.records == len(whole[-1])
    assert go_on(rows[:position]).live() == newest(rows[:position])
    for other in (rows[: position - 1], [], [*rows[: position - 2], (b"P0", b"other"), *rows[position - 1 :]], [*rows[:position - 1], *rows[position:]]):
        assert go_on(other).strayed, "another log, or torn where the store ends"


def without_sums(batch: Rows) -> Rows:
    """Return a batch as the version before wrote it."""
    data = json.loads(cast(bytes, batch[-1][1]))
    return [*batch[:-1], (MARKER_KEY, json.dumps({k: data[k] for k in ("version", "offsets", "batch_id", "extra")}).encode())]


def test_markers_of_the_version_before_are_taken_and_followed() -> None:
    whole = history(np.random.default_rng(2), 4)[1:]
    older = [row for batch in whole for row in without_sums(batch)]
    found = read(older)
    assert found.live() == newest(older) and found.marker.rows is None and found.marker.offsets == {"trades": 40}
    following = Marker.unpack(found.marker.value).close([(b"P0", b"new")])
    both = read([*older, *following])
    assert both.left_out_records == 0 and both.live()[b"P0"] == b"new" and both.marker.rows == 1
    # what it writes behind rows of a torn transaction it wrote from a state that has them: it checks nothing
    torn: Rows = [(b"P1", b"torn")]
    assert read([*older, *following, *torn]).live()[b"P1"] != b"torn"
    back = read([*older, *following, *torn, *without_sums(Marker.unpack(both.marker.value).close([(b"P2", b"old")]))])
    assert back.left_out_records == 0 and back.live()[b"P1"] == b"torn" and back.live()[b"P2"] == b"old"
    # torn behind an older marker is seen again
    assert read([*older, *following[:-1]]).left_out_records == 1


def test_a_writer_sees_that_its_transaction_before_did_not_end_once() -> None:
    """F25: nothing ended it, or a request that came late ended it again: the next offsets say so."""
    async def run(harm: str) -> None:
        rng = np.random.default_rng(3)
        broker = Broker()
        life = Life(broker, Disk(rng), Scheduler(), rng)
        await life.restore()
        life.writer.advance("trades", 1)
        await life.writer.flush()
        if harm == "not ended":
            broker.log.pop()
        else:
            broker.log.append((b"", None, NEVER))
        life.writer.advance("trades", 2)
        await life.writer.flush()

    for harm in ("not ended", "ended twice"):
        with pytest.raises(TornTransaction, match="has not ended once"):
            asyncio.run(run(harm))


def test_what_is_left_out_is_said_once_to_everybody(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row for batch in history(np.random.default_rng(4), 3) for row in batch]
    found = read([*rows, (b"P0", b"torn"), (b"P1", None)])
    sent, counted = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    publisher = SimpleNamespace(send=lambda *a: sent.append(a))
    counters = SimpleNamespace(add=lambda *a, **k: counted.append((*a, k)))
    for _ in range(2):
        say_torn(found, 3, {"trades": "x-trades", "alerts": "x-alerts"}, cast(Any, publisher), lambda: 1_800_000_000_000_000_000, cast(Any, counters))
    (topic, key, value), again = sent
    alert = decoder_of(Alert).decode(value)
    assert (topic, key) == ("x-alerts", b"firm") and alert.kind == "torn_transaction" and alert.value == 2
    assert alert.note is not None and "2 records behind offset" in alert.note and alert.alert_id == decoder_of(Alert).decode(again[2]).alert_id
    assert counted[0] == ("changelog_records_left_out", 2, {"partition": "3"}) and alert.note in caplog.text



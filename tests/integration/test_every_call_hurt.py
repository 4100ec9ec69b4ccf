"""F27: every call of the writer and of its restore lost, held, late, refused or swallowed, and the state is the fold of the log.

`make nightly` draws many times as many (DESKRISK_SEEDS); what was done to a case that fails is in its message, and
`app.faults.plan.Schedule` of it does the same again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import ProducerFenced

import tables.writer
from app.faults.plan import Action, Drawn, Fault, Schedule
from app.faults.proxy import FaultProxy
from app.faults.wire import Api
from tables.transactions import Unanswered
from tests.faults.fake_broker import Disk
from tests.faults.lives import trades
from tests.faults.real_life import ENDS, Impatient, RealLife, make_topic
from tests.faults.test_writer_under_crashes import SEEDS
from tests.folding import assert_equal, naive
from tests.integration.harness import Installation, Process, Upstream

pytestmark = pytest.mark.kafka
SEED = 20261127
#: once over every pair of a call and an action in a run of the tests, many times in a long one
ROUNDS, AT_ONCE, LIVES_MAX = max(1, SEEDS // 240), 6, 12
OF_TRANSACTIONS = frozenset({Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.TXN_OFFSET_COMMIT, Api.END_TXN})
#: every call of the writer and of its restore, with what a broker may refuse it with and how many there are of it at least
CALLS: dict[Api, tuple[tuple[int, ...], int]] = {
    Api.API_VERSIONS: ((), 4), Api.METADATA: ((), 2), Api.FIND_COORDINATOR: ((14, 15, -1), 2), Api.INIT_PRODUCER_ID: ((14, 15, 16, 51, 47), 1),
    Api.LIST_OFFSETS: ((3, 5, 6), 2), Api.FETCH: ((1, 3, 5, 6, -1), 2), Api.ADD_PARTITIONS_TO_TXN: ((3, 14, 15, 16, 47, 48, 51), 3),
    Api.PRODUCE: ((3, 5, 6, 7, 10, 19, 45, 47, 48), 6), Api.ADD_OFFSETS_TO_TXN: ((14, 15, 16, 47, 48, 51), 3),
    Api.TXN_OFFSET_COMMIT: ((3, 14, 15, 16, 47, 51), 3), Api.END_TXN: ((14, 15, 16, 47, 48, 51), 3)}
#: calls of a restore that finds something
RESTORES = frozenset({Api.FETCH, Api.LIST_OFFSETS})


def matrix(rng: np.random.Generator) -> Iterator[Fault]:
    """Yield a fault for every pair of a call and an action; which of the calls, and what follows, is drawn."""
    for (api, (codes, count)), action in itertools.product(CALLS.items(), Action):
        if action is Action.ERROR and not codes:
            continue
        yield Fault(api, action, nth=int(rng.integers(1, count + 1)), seconds=float(rng.uniform(0.05, 0.5)) if action is Action.DELAY else 0.0,
                    error_code=int(rng.choice(codes)) if action is Action.ERROR else 0,
                    times=int(rng.integers(1, 3)) if action in (Action.ERROR, Action.CUT) else 1,
                    until=(Api.PRODUCE, Api.ADD_OFFSETS_TO_TXN, Api.END_TXN)[int(rng.integers(3))] if action is Action.HOLD else None,
                    until_count=int(rng.integers(1, 3)) if action is Action.HOLD else 1)


class Case:
    """One fault, and the lives that it took until the log was folded."""

    def __init__(self, address: str, topic: str, partition: int, fault: Fault, seed: int) -> None:
        self.address, self.topic, self.partition, self.fault, self.seed = address, topic, partition, fault, seed
        self.states: Counter[str] = Counter()

    def life(self, address: str, disk: Disk, rng: np.random.Generator) -> RealLife:
        return RealLife(Impatient(address, request_s=1.0), self.topic, self.partition, disk, rng)

    async def run(self) -> None:
        """Live, be hurt, live again; compare."""
        rng = np.random.default_rng(self.seed)
        log, disk = trades(rng, 60), Disk(rng)
        began = 0
        if self.fault.api in RESTORES:  # there is something to read
            began = int(rng.integers(20, 40))
            await self.life(self.address, disk, rng).work(log[:began])
            disk = Disk(rng) if rng.random() < 0.5 else disk
        with FaultProxy(self.address, Schedule([self.fault])) as proxy:
            life = await self.lives(proxy, log, disk, rng)
            await life.die()
        self.count(proxy)
        fresh = self.life(self.address, Disk(rng), rng)
        assert await fresh.restore() == len(log)
        await fresh.die()
        assert_equal(fresh.part, naive(log))
        assert fresh.part.state_hash() == life.part.state_hash(), "I4: what is restored is what was live"

    async def lives(self, proxy: FaultProxy, log: list[dict[str, Any]], disk: Disk, rng: np.random.Generator) -> RealLife:
        acked = 0
        for _ in range(LIVES_MAX):
            life = self.life(proxy.address, disk, rng)
            try:
                await life.work(log)
                self.goes_on(life, acked)
                self.states["lived through it" if not self.states["ended"] else "went on"] += 1
                return life
            except ENDS as error:
                await life.die()
                kind = "unanswered" if isinstance(error, Unanswered) else "fenced" if isinstance(error, ProducerFenced) else "by an error"
                self.states["ended"] += 1
                self.states[f"ended {kind}"] += 1
                self.states["ended in restore"] += life.began is None
                assert not life.left_out, "a transaction was torn"
            acked = self.goes_on(life, acked)
        raise AssertionError(f"not folded after {LIVES_MAX} lives")

    @staticmethod
    def goes_on(life: RealLife, acked: int) -> int:
        """Return what is acknowledged by now; a life goes on where one before it had, or later."""
        assert life.began is None or life.began >= acked, f"I3: acknowledged up to {acked}, but it went on at {life.began}"
        return max(acked, life.acked, life.began or 0)

    def count(self, proxy: FaultProxy) -> None:
        """Count what was reached; nothing of a transaction that comes late may be taken."""
        self.states["hurt"] += bool(proxy.hurt())
        for line in proxy.tape:
            codes = line.get("codes")
            if line["what"] == "delivered" and self.fault.api in OF_TRANSACTIONS:
                assert codes and 0 not in codes, f"the broker took it: {line}"
                self.states["a late request was refused"] += 1
            elif line["what"] == "answer lost" and self.fault.api is Api.END_TXN and codes == [0]:
                self.states["committed, and nobody heard"] += 1


def test_each_call_in_each_way(broker: Any, monkeypatch: pytest.MonkeyPatch, random_seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """No trade is lost, none counts twice, whatever call is hurt in whatever way; each state of the list is reached."""
    monkeypatch.setattr(tables.writer, "BATCH_BYTES", 700)  # a flush is several batches, as a large one is
    states: dict[Action, Counter[str]] = {action: Counter() for action in Action}

    async def one(case: Case, turn: asyncio.Semaphore) -> None:
        async with turn:
            try:
                await asyncio.wait_for(case.run(), 120)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"seed {case.seed}, {case.fault}: {error!r}") from error
        states[case.fault.action].update(case.states | {"tried": 1})

    async def round_of(seed: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # what the dead waited for
        rng, topic = np.random.default_rng(seed), f"hurt-{seed}-{random_seed}"
        faults = list(matrix(rng))
        await make_topic(broker.address, topic, len(faults))
        turn = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(Case(broker.address, topic, p, fault, seed + p), turn) for p, fault in enumerate(faults)))

    for k in range(ROUNDS):
        asyncio.run(round_of(SEED if k == 0 else random_seed + 1_000 * k))
    with capsys.disabled():
        print("\n" + "\n".join(f"{action}: {json.dumps(dict(counts))}" for action, counts in states.items()))
    total = sum(states.values(), Counter())
    assert total["hurt"] > 0.9 * total["tried"], "faults that nothing met"
    for state in ("lived through it", "went on", "ended unanswered", "ended by an error", "ended in restore", "a late request was refused", "committed, and nobody heard"):
        assert total[state], f"sometimes: {state}"


#: what a cluster does to its clients in bad hours; what takes a client its whole request timeout (40 s) in long runs alone
BAD_HOURS = [Fault(api, action, seconds=0.3 if action is Action.DELAY else 0.0, until=Api.PRODUCE if action is Action.HOLD else None)
             for api in CALLS for action in (Action.CUT, Action.HOLD, Action.LOSE_ANSWER, Action.DELAY)] + [
    Fault(api, Action.ERROR, error_code=code) for api, (codes, _) in CALLS.items() for code in codes] + [
    Fault(api, action) for api in (Api.JOIN_GROUP, Api.SYNC_GROUP, Api.HEARTBEAT, Api.OFFSET_FETCH, Api.OFFSET_COMMIT) for action in (Action.CUT, Action.LOSE_ANSWER)]
#: a line is bad until so many requests were hurt, or for so long
HURT, HOUR_S = (20, 30.0) if ROUNDS == 1 else (40, 240.0)
SILENT_HOURS = BAD_HOURS + [Fault(api, action) for api in CALLS for action in (Action.BLACK_HOLE, Action.SILENCE)]


@pytest.mark.parametrize("hour", range(min(ROUNDS, 6)))
def test_workers_behind_a_bad_line(made: Installation, tmp_path: Path, random_seed: int, hour: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers, everything that they ask hurt at random while trades come; then nothing more, and the table is right."""
    seed = random_seed + hour
    running: dict[str, Process] = {}
    ends: Counter[int] = Counter()

    def start(folder: str, address: str) -> None:
        running[folder] = made.worker(folder=folder, DESKRISK_BROKERS=address)

    async def keep(stop: asyncio.Event, address: str) -> None:
        while not stop.is_set():
            for folder, worker in list(running.items()):
                code = worker.process.poll()
                if code is not None:
                    ends[code] += 1
                    start(folder, address)
            await asyncio.sleep(0.3)

    async def scenario(proxy: FaultProxy) -> None:
        await made.create()
        stop = asyncio.Event()
        async with Upstream(made, seed) as upstream:
            for folder in "ab":
                start(folder, proxy.address)
            for worker in running.values():
                await asyncio.to_thread(worker.wait_ready)
            keeping = asyncio.create_task(keep(stop, proxy.address))
            proxy.arm(Drawn(seed, 0.04, SILENT_HOURS if ROUNDS > 1 else BAD_HOURS))
            began = time.monotonic()
            while len(proxy.hurt()) < HURT and time.monotonic() - began < HOUR_S:
                await upstream.send(500, duplicates=0.05, wrong_partition=0.05, pause_s=0.1)
            proxy.arm(Schedule())
            await made.quiesce()
            stop.set()
            await keeping
        report.update(await made.assert_exact())
        assert report["trades"] == len(upstream.sent)

    proxy, report = FaultProxy(str(made.settings.brokers)), dict[str, Any]()
    proxy.start()
    try:
        asyncio.run(scenario(proxy))
    except AssertionError as error:
        tape = tmp_path / "tape.jsonl"
        proxy.write_tape(tape)
        raise AssertionError(f"seed {seed}, tape in {tape}: {error}") from error
    finally:
        made.close()
        proxy.stop()
    with capsys.disabled():
        done = Counter(f"{line['fault']['api']} {line['fault']['action']}" for line in proxy.hurt())
        print(f"\nseed {seed}: {report['trades']} trades, ends {dict(ends)}, hurt {sum(done.values())}: {dict(done)}")
    assert sum(done.values()) >= HURT / 2, "a line that is not bad proves nothing"

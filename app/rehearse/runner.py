"""Scenarios in installations: those of equal settings share one and run side by side, the others run one by one."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.brokers import EmbeddedBroker
from app.rehearse.installation import Installation
from app.rehearse.live import Live
from app.rehearse.names import Names, prefix_of
from app.rehearse.performing import Rehearsal
from app.rehearse.reporting import Result
from app.rehearse.scenario import RECORD_STEPS, Scenario
from app.rehearse.store import NoStore, library
from app.settings import Settings
from tables.tasks import process

#: scenarios that run side by side in one installation: each waits most of its time
AT_ONCE = 10
ROLES = ("positions", "marks", "risk", "gate", "gateway")
#: brokers of scenarios that need none
NOBODY = "127.0.0.1:1"
Say = Callable[[str], None]


class Runner:
    """Runs scenarios on one broker.

    Parameters
    ----------
    settings : with the brokers; every installation adds a prefix of its own to that of the settings
    is_embedded : whether that broker compacts nothing
    """

    def __init__(self, settings: Settings, is_embedded: bool, say: Say = lambda text: None) -> None:
        self._settings, self._is_embedded, self._say = settings, is_embedded, say
        self._number = 0

    async def run(self, scenarios: Sequence[Scenario]) -> AsyncIterator[Result]:
        """Yield what came of every scenario, as each ends."""
        left = [s for s in scenarios if not s.is_offline]
        for scenario in scenarios:
            if scenario.is_offline:
                yield await self._offline(scenario)
        if any(s.needs_store for s in left):
            try:
                await library()
            except NoStore as error:
                for scenario in left:
                    if scenario.needs_store:
                        yield Result(scenario, skipped=str(error))
                left = [s for s in left if not s.needs_store]
        groups: dict[str, list[Scenario]] = {}
        for scenario in left:
            if not scenario.alone:
                groups.setdefault(json.dumps(scenario.settings, sort_keys=True), []).append(scenario)
        for group in groups.values():
            async for result in self._shared(group):
                yield result
        for scenario in left:
            if scenario.alone:
                yield await self._alone(scenario)

    async def _offline(self, scenario: Scenario) -> Result:
        """Perform a scenario of calculators and files: its installation is never started."""
        live = self._live([scenario], {})
        try:
            return await self._perform(live, scenario, "")
        finally:
            await live.installation.stop()

    # ---- side by side ---------------------------------------------------------------------------------------------
    async def _shared(self, scenarios: list[Scenario]) -> AsyncIterator[Result]:
        """Run scenarios side by side; those that were under way when a role stood still run again by themselves."""
        waiting, suspects = list(scenarios), list[Scenario]()
        while waiting:
            prefixes = [prefix_of(self._number + k) for k in range(1, len(waiting) + 1)]
            live = self._live(waiting, {prefix: f"book:{prefix}B" for prefix in prefixes})
            done: asyncio.Queue[Result] = asyncio.Queue()
            tasks: set[asyncio.Task[None]] = set()
            try:
                await live.start()
                broken, running = False, dict[int, Scenario]()
                while (waiting and not broken) or running:
                    while waiting and not broken and len(running) < AT_ONCE:
                        scenario = waiting.pop(0)
                        self._number += 1
                        running[id(scenario)] = scenario
                        task = process.errand(f"scenario {scenario.name}", partial(
                            self._put, live, scenario, self._number, done))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    result = await done.get()
                    del running[id(result.scenario)]
                    broken = broken or result.unsettled
                    if broken and not result.ok:
                        suspects.append(result.scenario)
                    else:
                        yield result
                if broken:
                    self._say("a role stood still: what was under way runs again, each by itself")
            finally:
                for task in tasks:
                    task.cancel()
                await live.stop()
        for scenario in suspects:
            yield await self._alone(scenario)

    async def _put(self, live: Live, scenario: Scenario, number: int, done: asyncio.Queue[Result]) -> None:
        await done.put(await self._perform(live, scenario, prefix_of(number)))

    async def _perform(self, live: Live, scenario: Scenario, prefix: str) -> Result:
        rehearsal = Rehearsal(live, scenario, _names(scenario, prefix))
        try:
            return await rehearsal.run()
        except Exception as error:  # noqa: BLE001 - the others go on, and the report says it
            return rehearsal.failed(error)

    # ---- one by one -----------------------------------------------------------------------------------------------
    async def _alone(self, scenario: Scenario) -> Result:
        live = self._live([scenario], {"": "book:B"}, scenario.history)
        try:
            await live.start()
            return await self._perform(live, scenario, "")
        except TimeoutError as error:
            result = Result(scenario)
            result.differs(0, None, [f"the installation did not start: {error}"])
            return result
        finally:
            await live.stop()

    def _live(self, scenarios: Sequence[Scenario], dealers: dict[str, str], history: str | None = None) -> Live:
        settings = self._settings.model_copy(update={
            "prefix": f"{self._settings.prefix}rehearsal-{secrets.token_hex(4)}-"})
        roles = (*ROLES, "sink") if any(s.needs_store for s in scenarios) else ROLES
        return Live(Installation(settings, scenarios[0].settings, roles, dealers, history), self._is_embedded)


def _names(scenario: Scenario, prefix: str) -> Names:
    """Return the names of a scenario: those of its reference data, and those that its records give."""
    names = Names(prefix, scenario.levels)
    names.declare(scenario.reference)
    for step in scenario.steps:
        if step.kind in RECORD_STEPS:
            for row in step.body if isinstance(step.body, list) else [step.body]:
                names.learn(row)
    return names


async def rehearse(scenarios: Sequence[Scenario], settings: Settings, embedded: bool, say: Say,
                   told: Callable[[Result], None]) -> list[Result]:
    """Run scenarios and tell of each as it ends; return what came of all."""
    if not embedded or all(s.is_offline for s in scenarios):
        here = settings if settings.brokers else settings.model_copy(update={"brokers": NOBODY})
        return await _all(Runner(here, embedded, say), scenarios, told)
    broker = EmbeddedBroker(say)
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="deskrisk-rehearse-") as scratch:
        try:
            brokers = await loop.run_in_executor(None, broker.start)
            here = settings.model_copy(update={"brokers": brokers, "data_dir": Path(scratch)})
            return await _all(Runner(here, True, say), scenarios, told)
        finally:
            broker.stop()


async def _all(runner: Runner, scenarios: Sequence[Scenario], told: Callable[[Result], None]) -> list[Result]:
    found: list[Result] = []
    async for result in runner.run(scenarios):
        told(result)
        found.append(result)
    return found


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return all results as JSON."""
    states = [r.state for r in results]
    return {"scenarios": len(results), "ok": states.count("ok"), "different": states.count("different"),
            "skipped": states.count("skipped"), "results": [r.fields() for r in results]}

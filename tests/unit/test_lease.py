"""A member acts as an owner only while nobody else can own what it owns."""

from __future__ import annotations

import asyncio

import pytest

from tables.exit_codes import ExitCode
from tables.lease import Lease


class Process:
    """A clock, and whether the process was ended."""

    def __init__(self) -> None:
        self.now = 100.0
        self.left: list[int] = []
        self.lease = Lease(6.0, lambda: self.now, self.left.append)


@pytest.fixture
def process() -> Process:
    return Process()


def test_it_is_held_for_the_session_timeout_after_an_answered_heartbeat_was_sent(process: Process) -> None:
    assert process.lease.held()  # it has joined nothing, and owns nothing
    process.lease.renew(process.now, "m1")
    process.now += 5.9
    assert process.lease.held()
    process.lease.renew(process.now - 3.0, "m1")  # the answer took three seconds
    process.now += 2.9
    assert process.lease.held()
    process.now += 0.2
    assert not process.lease.held() and not process.left


def test_nothing_is_owned_before_a_heartbeat_was_answered(process: Process) -> None:
    async def ask() -> bool:
        assert not process.lease.held()
        process.lease.renew(process.now, "m1")
        return True

    process.lease.ask = ask
    asyncio.run(process.lease.begin())
    process.lease.ask = None  # held already: nobody is asked
    asyncio.run(process.lease.begin())
    assert process.lease.held() and not process.left


def test_who_was_stopped_asks_and_goes_on_where_it_is_still_a_member(process: Process) -> None:
    process.lease.renew(process.now, "m1")
    process.now += 60.0
    asked = 0

    async def ask() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:  # the first heartbeat got no answer
            process.lease.renew(process.now, "m1")
        return True

    process.lease.ask = ask
    asyncio.run(process.lease.sure())
    assert asked == 2 and process.lease.held() and not process.left


def test_who_was_given_up_leaves_and_so_does_who_has_joined_anew_meanwhile(process: Process) -> None:
    process.lease.renew(process.now, "m1")
    process.now += 60.0

    async def forgotten() -> bool:
        return False

    process.lease.ask = forgotten
    asyncio.run(process.lease.sure())
    assert process.left == [ExitCode.FENCED] and not process.lease.held()
    process.lease.renew(process.now, "m2")
    assert process.left == [ExitCode.FENCED] * 2

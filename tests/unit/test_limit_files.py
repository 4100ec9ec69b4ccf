"""Limits from a file: only what differs becomes a version, all of it or nothing, and what is wrong is named line by line."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.control import Refused, limit_to_remove
from app.limit_files import changes, check_limits_of, read_limits, watch_limits
from schemas.records import Limit

NOW = 1_795_000_000_000_000_000
REASON = "agreed by the risk committee"
GROSS = Limit(limit_id="G", node="desk:D", metric="gross", limit=Decimal(100), version=3, by="ann", reason="as agreed before")
ROW = {"limit_id": "G", "node": "desk:D", "metric": "gross", "limit": "100.0"}


def file(tmp_path: Path, text: str, name: str = "limits.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_file_is_read_from_csv_and_yaml_alike(tmp_path: Path) -> None:
    csv = read_limits(file(tmp_path, "limit_id,node,metric,limit,window_ms,reason\nG,desk:D,gross,100,,\nW,trader:t,message_count,5,1000,orders a second\n"), REASON)
    yaml = read_limits(file(tmp_path, "- {limit_id: G, node: 'desk:D', metric: gross, limit: 100}\n- {limit_id: W, node: 'trader:t', metric: message_count, limit: 5,"
                                      " window_ms: 1000, reason: orders a second}\n", "limits.yaml"), REASON)
    (a, b), (c, d) = ([msgspec.structs.replace(x, version=1) for x in changes(rows, {}, "bob", False, NOW).set] for rows in (csv, yaml))
    assert (a, b) == (c, d) and a.reason == REASON and (b.reason, b.window_ms) == ("orders a second", 1000)


def test_only_what_differs_is_written_and_needs_a_reason() -> None:
    same = changes({"G": ROW | {"reason": ""}}, {"G": GROSS}, "bob", False, NOW)
    assert (same.set, same.same) == ([], 1)
    (after,) = changes({"G": ROW | {"limit": "120", "reason": REASON}}, {"G": GROSS}, "bob", False, NOW).set
    assert (after.version, after.limit, after.by, after.reason) == (4, Decimal(120), "bob", REASON)
    with pytest.raises(Refused, match="G: reason: expected at least 10 characters, was ''"):
        changes({"G": ROW | {"limit": "120", "reason": ""}}, {"G": GROSS}, "bob", False, NOW)


def test_every_problem_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = file(tmp_path, "limit_id,node,metric,limit,colour\nA,firm,gross,1,red\n")
    with pytest.raises(Refused, match=r"limits.csv:1: colour: expected a field of a limit \(limit_id, node, .*\), was 'colour'"):
        read_limits(path, REASON)
    path = file(tmp_path, "limit_id,node,metric,limit\nA,firm,gross,1\nA,firm,net,1\nB,firm,net,\n")
    with pytest.raises(Refused, match=r"(?s)limits.csv:3: limit_id: expected each limit once, 'A' appears twice.*limits.csv:4: limit: expected a value, was empty"):
        read_limits(path, REASON)
    rows = {"A": ROW | {"limit_id": "A", "limit": "many", "reason": REASON}, "B": ROW | {"limit_id": "B", "node": "nowhere", "reason": REASON},
            "C": ROW | {"limit_id": "C", "reason": REASON}}
    with pytest.raises(Refused, match=r"(?s)A: limit: expected a number, was 'many'.*B: node: expected firm or one of"):
        changes(rows, {}, "bob", False, NOW)


def test_pruning_removes_lasting_limits_only_and_not_what_two_people_set() -> None:
    temporary = msgspec.structs.replace(GROSS, limit_id="G~override", until="2030-01-01T00:00:00Z")
    held = {"G": GROSS, "G~override": temporary}
    assert changes({}, held, "bob", False, NOW).removed == [] and [x.limit_id for x in changes({}, held, "bob", True, NOW).removed] == ["G"]
    with pytest.raises(Refused, match="G: approved_by: expected a second person: two people set G"):
        changes({}, {"G": msgspec.structs.replace(GROSS, approved_by="sam")}, "bob", True, NOW)
    pair = msgspec.structs.replace(GROSS, approved_by="sam")
    asked = {"limit_id": "G", "reason": REASON}
    for fields, text in ((asked, "expected a second person"), (asked | {"approved_by": "bob"}, "expected a second person"), (asked | {"reason": "no"}, "reason: expected")):
        with pytest.raises(Refused, match=text):
            limit_to_remove({"G": pair}, fields, "bob", NOW)
    assert limit_to_remove({"G": pair}, asked | {"approved_by": "rita"}, "bob", NOW) is pair
    with pytest.raises(Refused, match="limit_id: expected a limit that exists, was 'G'"):
        limit_to_remove({}, asked, "bob", NOW)


def test_a_raise_of_a_limit_of_two_people_needs_both_in_a_file_too() -> None:
    pair = msgspec.structs.replace(GROSS, approved_by="sam")
    with pytest.raises(Refused, match="G: approved_by: expected a second person: two people set G"):
        changes({"G": ROW | {"limit": "101", "reason": REASON}}, {"G": pair}, "bob", False, NOW)
    (after,) = changes({"G": ROW | {"limit": "99", "reason": REASON}}, {"G": pair}, "bob", False, NOW).set
    assert after.approved_by == "sam", "lowered by one, it stays theirs"


def test_a_watched_file_is_loaded_whenever_it_changes(tmp_path: Path) -> None:
    path, loaded, waiting, stop = file(tmp_path, "one"), list[str](), list[asyncio.Task[None]](), asyncio.Event()

    async def put_back() -> None:
        await asyncio.sleep(0.7)
        path.write_text("put back")

    async def load() -> bool:
        loaded.append(path.read_text())
        if len(loaded) == 5:
            stop.set()
        elif len(loaded) == 4:
            path.unlink()
            waiting.append(asyncio.create_task(put_back()))
        elif len(loaded) < 3:
            path.write_text("more of it " * len(loaded))
            os.utime(path, ns=(len(loaded), len(loaded)))
        return len(loaded) != 3  # the broker was away: the same file again

    async def follow() -> Any:
        return await asyncio.wait_for(watch_limits(load, path, stop), 20)

    asyncio.run(follow())
    assert loaded == ["one", "more of it ", "more of it more of it ", "more of it more of it ", "put back"]


def test_a_check_of_a_file_alone_names_what_could_not_be_written(tmp_path: Path) -> None:
    assert check_limits_of(file(tmp_path, "limit_id,node,metric,limit\nG,firm,gross,1\nN,desk:D,net,2\n"), "bob") == ["G", "N"]
    with pytest.raises(Refused, match=r"limits.csv:3: N: node: expected firm or one of"):
        check_limits_of(file(tmp_path, "limit_id,node,metric,limit\nG,firm,gross,1\nN,nowhere,net,2\n"), "bob")

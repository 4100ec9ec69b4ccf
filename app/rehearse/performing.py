"""One scenario, step by step: what it sends, what it waits for, what it finds."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from app.rehearse.compaction import CannotCompact, compact
from app.rehearse.live import Live
from app.rehearse.looking import ROUNDS, Eyes
from app.rehearse.names import Names
from app.rehearse.page import NoBrowser
from app.rehearse.reporting import Result, Skipped
from app.rehearse.scenario import RECORD_STEPS, Scenario, Step
from app.rehearse.users import TRACEBACK, Desk, calculated, refused
from app.rehearse.values import RELATIVE, agrees, at_path, differences, shown, with_times
from app.rehearse.waiting import NotSettled
from schemas.topics import TOPICS
from tables.kafka import owner_partition

#: a value that is to be there is waited for this long after all was read: the models run seconds apart
HOLDS_S, LOOK_S = 30.0, 0.05
DECIDED_S = 60.0
#: of these topics all readers know before something else is sent: which of two topics is read first is chance
SETTLES = frozenset(("limits", "controls", "reference.instruments", "reference.accounts", "reference.counterparties",
                     "market.surfaces", "positions.external", "corporate.actions"))
#: fields of the present where a record names none
_PRESENT = {kind: "ts" if kind == "control" else "ts_event" for kind, (cls, _, _) in RECORD_STEPS.items()
            if {"ts", "ts_event"} & set(cls.__struct_fields__)}
_TOPICS = {t.name: t for t in TOPICS}


class Rehearsal:
    """Performs one scenario in an installation."""

    def __init__(self, live: Live, scenario: Scenario, names: Names) -> None:
        self._live, self._scenario, self._names = live, scenario, names
        self._eyes, self._desk = Eyes(live, names, scenario.name), Desk(live, scenario, names)
        self._saved: dict[str, Any] = {}
        self._last_ns = 0
        #: something was sent that was not waited for; it went to a topic that others rest on
        self._open, self._pending = False, ""
        self._result = Result(scenario)
        self._step: Step | None = None

    async def run(self) -> Result:
        """Perform it; whatever goes wrong is in the result."""
        began = time.monotonic()
        result = self._result
        try:
            await self._reference()
            for number, step in enumerate(self._scenario.steps, 1):
                self._step = step
                wrong = await self._perform(step)
                if wrong:
                    result.differs(number, step, wrong)
                    break
        except Skipped as error:
            result.skipped = str(error)
        except NotSettled as error:
            result.unsettled = True
            result.differs(self._number(), self._step, [f"expected all roles to read on, seen: {error}"])
        except (OSError, TimeoutError, RuntimeError, ValueError, aiohttp.ClientError) as error:
            result.differs(self._number(), self._step, [f"{type(error).__name__}: {error}"])
        finally:
            await self._eyes.close()
            self._desk.close()
        result.seconds = time.monotonic() - began
        return result

    def failed(self, error: Exception) -> Result:
        """Return the result of a scenario whose step raised what nobody foresaw."""
        self._result.differs(self._number(), self._step, [f"the runner failed: {type(error).__name__}: {error}"])
        return self._result

    def _number(self) -> int:
        return self._scenario.steps.index(self._step) + 1 if self._step is not None else 0

    # ---- sending --------------------------------------------------------------------------------------------------
    def _now(self) -> int:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    async def _reference(self) -> None:
        for stem, kind in (("instruments", "instrument"), ("accounts", "account"), ("counterparties", "counterparty")):
            for record in self._scenario.reference.get(stem) or ():
                await self._send(kind, record, None)
        await self._settle(1)

    async def _settle(self, rounds: int) -> None:
        if self._open or self._pending:
            await self._live.waiting.settle(rounds)
            self._open, self._pending = self._open and rounds < 3, ""

    async def _before(self, topic: str) -> None:
        if self._pending and self._pending != topic:
            await self._settle(1)

    async def _send(self, kind: str, record: Mapping[str, Any], partition: int | None) -> tuple[int, int]:
        """Send one record of a known kind as JSON."""
        topic = RECORD_STEPS[kind][1]
        made = self._made(kind, record)
        return await self._publish(topic, _key(topic, kind, made), json.dumps(made).encode(),
                                   _partition(topic, made, self._live, partition))

    def _made(self, kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        stamped = {_PRESENT[kind]: now} if kind in _PRESENT else {}
        made: dict[str, Any] = self._names.record(with_times(stamped | dict(record), now))
        return self._filled(made)

    async def _publish(self, topic: str, key: bytes | None, value: bytes | None,
                       partition: int | None) -> tuple[int, int]:
        await self._before(topic)
        where = await self._live.publish(topic, key, value, partition)
        self._eyes.sent.add((topic, *where))
        if topic in SETTLES:
            self._pending = topic
        self._open = self._open or topic != "orders"
        return where

    def _filled(self, value: Any) -> Any:
        """Put what was saved where ``${name}`` stands."""
        if isinstance(value, dict):
            return {k: self._filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        for name, held in self._saved.items():
            if value == f"${{{name}}}":
                return held
            value = value.replace(f"${{{name}}}", str(held))
        return value

    # ---- steps ----------------------------------------------------------------------------------------------------
    async def _perform(self, step: Step) -> list[str]:
        """Perform a step; return what differs."""
        if step.kind == "order":
            return await self._orders(step)
        if step.kind in RECORD_STEPS:
            return await self._records(step)
        return await getattr(self, f"_do_{step.kind}")(step)

    async def _records(self, step: Step) -> list[str]:
        rows = step.body if isinstance(step.body, list) else [step.body]
        partition = step.beside.get("partition")
        if not step.beside.get("as_array"):
            for row in rows:
                await self._send(step.kind, row, partition)
            return []
        topic, made = RECORD_STEPS[step.kind][1], [self._made(step.kind, row) for row in rows]
        key = _key(topic, step.kind, made[0]) if made else None
        await self._publish(topic, key, json.dumps(made).encode(),
                            _partition(topic, made[0] if made else {}, self._live, partition))
        return []

    async def _orders(self, step: Step) -> list[str]:
        await self._settle(3)  # limits, prices and positions are known before an order comes
        via, rows = step.beside.get("via", "topic"), step.body if isinstance(step.body, list) else [step.body]
        expect = self._filled(step.expect)
        if via == "topic":
            had = {row.get("order_id"): len(self._eyes.decisions(str(row.get("order_id")))) for row in rows}
            await self._records(step)
            if expect is None:
                return []
            return [line for row in rows for line in await self._decided(row, had[row.get("order_id")], expect)]
        wrong: list[str] = []
        for row in rows:
            answer = await (self._socket(row) if via == "socket" else self._door(row))
            if expect is not None:
                wrong += _judged(expect, answer)
        return wrong

    async def _decided(self, row: Mapping[str, Any], had: int, expect: Mapping[str, Any]) -> list[str]:
        """Wait for the decision on an order of the topic; one that was not decided may have been quarantined."""
        deadline, found = time.monotonic() + DECIDED_S, []
        while time.monotonic() < deadline:
            found = self._eyes.decisions(str(row.get("order_id")))[had:]
            if found or ("refused" in expect and await self._eyes.look("quarantine", {"topic": "orders"})):
                break
            await asyncio.sleep(0.02)
        if found:
            return _judged(expect, found[0])
        quarantined = await self._eyes.look("quarantine", {"topic": "orders"})
        if quarantined:
            return _judged(expect, {"error": f"{quarantined[-1]['reason']}: {quarantined[-1]['detail']}"})
        return [f"expected a decision on {row.get('order_id')}, seen none after {DECIDED_S:.0f} s"]

    async def _socket(self, row: Mapping[str, Any]) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self._live.installation.socket))
        try:
            writer.write(json.dumps(self._made("order", row)).encode() + b"\n")
            answer = await asyncio.wait_for(reader.readline(), DECIDED_S)
        finally:
            writer.close()
        return self._names.off(json.loads(answer or b'{"error": "the door was closed without an answer"}'))

    async def _door(self, row: Mapping[str, Any]) -> Any:
        gates = self._live.outputs.gates
        made = self._made("order", row)
        owner = owner_partition(str(made.get("account")), self._live.installation.settings.partitions)
        address = gates[owner].address if owner in gates else None
        if address is None:
            return {"error": "no gate says where it answers over HTTP"}
        async with self._live.session.post(f"{address}/orders", json=made,
                                           headers=self._live.headers("trader", self._names.prefix)) as reply:
            text = await reply.text()
        try:
            body = json.loads(text)
        except ValueError:
            body = {"error": text}
        return self._names.off(body)

    async def _do_record(self, step: Step) -> list[str]:
        body, names = step.body, self._names
        value = self._filled(names.values(with_times(body["value"], self._now())))
        key = None if body.get("key") is None else names.text(str(body["key"])).encode()
        await self._publish(body["topic"], key, None if value is None else json.dumps(value).encode(),
                            body.get("partition", step.beside.get("partition")))
        return []

    async def _do_raw(self, step: Step) -> list[str]:
        body, names = step.body, self._names
        raw = base64.b64decode(body["base64"]) if "base64" in body else names.braces(str(body["text"])).encode()
        key = None if body.get("key") is None else names.braces(names.text(str(body["key"]))).encode()
        await self._publish(body["topic"], key, raw, body.get("partition", step.beside.get("partition")))
        return []

    async def _do_file(self, step: Step) -> list[str]:
        expect: Mapping[str, Any] = self._filled(step.expect or {})
        await self._before("")
        said = await self._desk.file(step.body)
        if step.body["as"] != "history":  # a file of prices is read, and nothing is published
            self._open, self._pending = True, "file"
        if TRACEBACK in said.text:
            return [f"expected no traceback, seen {said.text[-600:]}"]
        wrong = []
        if "refused" in expect:
            wrong += refused(said, expect["refused"] if isinstance(expect["refused"], Mapping) else {})
        if expect.get("loads") is not None and (said.exit == 0) != expect["loads"]:
            wrong.append(f"loads: expected {shown(expect['loads'])}, seen exit code {said.exit}: {said.text[-400:]}")
        return wrong

    async def _do_calc(self, step: Step) -> list[str]:
        expect: Mapping[str, Any] = self._filled(step.expect or {})
        answer = calculated(step.body["name"], step.body["line"])
        if "traceback" in answer:
            return [f"expected no traceback, seen {answer['traceback']}"]
        if "refused" in expect:
            if "error" not in answer:
                return [f"expected a refusal, seen {shown(answer)}"]
            parts = expect["refused"] if isinstance(expect["refused"], Mapping) else {}
            return differences(dict(parts), answer["error"])
        if "error" in answer and expect:
            return [f"expected an answer, seen {shown(answer['error'])}"]
        return differences(expect.get("is") or {}, answer, expect.get("within", RELATIVE))

    async def _do_http(self, step: Step) -> list[str]:
        expect, reads = self._filled(step.expect), step.body["method"].upper() == "GET"
        await (self._settle(3) if expect is not None or reads else self._before(""))
        deadline = time.monotonic() + (HOLDS_S if reads and expect else 0.0)
        while True:
            status, answer = await self._ask(step.body)
            wrong = _answered(expect or {}, status, answer)
            if not wrong or time.monotonic() >= deadline:
                break
            await asyncio.sleep(2 * LOOK_S)
        if not reads:
            self._open, self._pending = True, "http"
        return wrong or self._save(step, answer)

    async def _ask(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        sent = self._filled(self._names.values(with_times(body["json"], self._now()))) if "json" in body else None
        return await self._eyes.ask(body["method"].upper(), self._filled(self._names.path(body["path"])),
                                    body.get("as", "viewer"), sent)

    async def _do_command(self, step: Step) -> list[str]:
        expect: Mapping[str, Any] = self._filled(step.expect or {})
        await self._settle(3)
        said = await self._desk.command(self._filled(step.body["run"]))
        self._open, self._pending = True, "command"
        if TRACEBACK in said.text:
            return [f"expected no traceback, seen {said.text[-600:]}"]
        wrong = []
        if "exit" in expect and not agrees(expect["exit"], said.exit):
            wrong.append(f"exit: expected {expect['exit']}, seen {said.exit}: {said.text[-400:]}")
        if "output" in expect and not agrees(expect["output"], said.text):
            wrong.append(f"output: expected {shown(expect['output'])}, seen {shown(said.text[-400:])}")
        answer = _json_of(said.output)
        wrong += differences(expect.get("is") or {}, answer, expect.get("within", RELATIVE))
        return wrong or self._save(step, answer)

    def _save(self, step: Step, answer: Any) -> list[str]:
        for name, path in (step.beside.get("save") or {}).items():
            found = at_path(answer, path)
            if not isinstance(found, str | int | float):
                return [f"save: expected a value at {path}, seen {shown(answer)}"]
            self._saved[name] = found
        return []

    async def _do_compact(self, step: Step) -> list[str]:
        await self._settle(1)
        try:
            await compact(self._live, str(step.body))
        except CannotCompact as error:
            raise Skipped(str(error)) from error
        return []

    async def _do_kill(self, step: Step) -> list[str]:
        await self._live.installation.kill(step.body)
        self._open = True
        return []

    async def _do_stop(self, step: Step) -> list[str]:
        await self._settle(1)
        await self._live.installation.stop_role(step.body)
        return []

    async def _do_start(self, step: Step) -> list[str]:
        await self._live.installation.start_role(step.body)
        self._open = True
        return []

    async def _do_sleep_s(self, step: Step) -> list[str]:
        await asyncio.sleep(step.body)
        self._open = True
        return []

    async def _do_expect(self, step: Step) -> list[str]:
        """Wait until all is folded; then the value must hold, or never be there."""
        body = step.body
        what = next(k for k in body if k in ROUNDS or k in (
            "risk", "alert", "cancel", "limit_usage", "sql", "page", "http"))
        never, wanted, within = body.get("never", False), self._filled(body.get("is")), body.get("within", RELATIVE)
        self._open = True
        await self._live.waiting.settle(3 if never else ROUNDS.get(what, 3), store=what == "sql")
        self._pending, self._open = "", True
        if what == "http":
            status, answer = await self._ask(body["http"])
            expect = {k: self._filled(v) for k, v in body.items() if k in ("status", "is", "within")}
            return _answered(expect, status, answer)
        deadline = time.monotonic() + (0.0 if never else HOLDS_S)
        while True:
            try:
                found = await self._eyes.look(what, body[what])
            except NoBrowser as error:
                raise Skipped(str(error)) from error
            holds = [f for f in found if not _differs(wanted, f, within)]
            if never:
                return [f"expected never, seen {shown(holds[-1])}"] if holds else []
            if holds:
                return []
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(LOOK_S)
        return _differs(wanted, found[-1], within) if found else [
            f"expected {shown(wanted) if wanted else 'one'}, seen none"]


def _differs(wanted: Any, seen: Any, within: float) -> list[str]:
    if wanted is None:
        return []
    return differences(wanted, seen, within)


def _judged(expect: Mapping[str, Any], answer: Any) -> list[str]:
    """Return what of a decision, or of what a door says instead of one, is not as expected."""
    if "refused" in expect:
        text = str(answer.get("error", ""))
        return [] if text and str(expect["refused"]) in text else [
            f"refused: expected {expect['refused']!r}, seen {shown(answer)}"]
    if "outcome" not in answer:
        return [f"expected a decision, seen {shown(answer)}"]
    wrong = []
    codes = [r["code"] for r in answer.get("reasons") or []]
    warnings = [r["code"] for r in answer.get("warnings") or []]
    if "outcome" in expect and answer["outcome"] != expect["outcome"]:
        why = "".join(f" ({r['code']}: {r['measured']} of {r['limit']})" for r in answer.get("reasons") or [])
        wrong.append(f"outcome: expected {expect['outcome']}, seen {answer['outcome']}{why}")
    elif expect.get("codes") and (not set(expect["codes"]) <= set(codes) or codes[:1] != expect["codes"][:1]):
        wrong.append(f"codes: expected {', '.join(expect['codes'])}, seen {', '.join(codes) or 'none'}")
    if expect.get("warnings") is not None and not set(expect["warnings"]) <= set(warnings):
        wrong.append(f"warnings: expected {', '.join(expect['warnings'])}, seen {', '.join(warnings) or 'none'}")
    return wrong + differences(expect.get("is") or {}, answer, expect.get("within", RELATIVE))


def _answered(expect: Mapping[str, Any], status: int, answer: Any) -> list[str]:
    """Return what of an answer over HTTP is not as expected."""
    if "status" in expect and not agrees(expect["status"], status):
        return [f"status: expected {expect['status']}, seen {status}: {shown(answer)}"]
    return differences(expect.get("is") or {}, answer, expect.get("within", RELATIVE))


def _key(topic: str, kind: str, record: Mapping[str, Any]) -> bytes | None:
    """Return the key that a plain client gives a record: the fields that the topic names."""
    fields = _TOPICS[topic].key.split("|") if topic in _TOPICS else []
    if not fields or not all(f in record for f in fields):
        fields = [RECORD_STEPS[kind][2]]
    parts = [record.get(f) for f in fields]
    return "|".join(map(str, parts)).encode() if all(isinstance(p, str) for p in parts) else None


def _partition(topic: str, record: Mapping[str, Any], live: Live, given: int | None) -> int | None:
    """Return the partition: as given; else that of the account, where a topic's key is more than an account."""
    if given is not None or topic != "positions.external" or not isinstance(record.get("account"), str):
        return given
    return owner_partition(record["account"], live.installation.settings.partitions)


def _json_of(output: str) -> Any:
    """Return the JSON that a command printed: all of it, or its lines."""
    try:
        return json.loads(output)
    except ValueError:
        lines = []
        for line in output.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines[0] if len(lines) == 1 else lines

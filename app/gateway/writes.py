"""Limits, alerts, breakers and decisions over HTTP: reads of granted nodes, writes there for the role `risk`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app import control
from app.decisions import decisions_of
from app.gateway.access import need_role
from app.gateway.answers import json_answer, sight_of
from app.gateway.approvals import new_approval
from app.gateway.standing import standings
from app.gateway.state import GatewayState
from app.gateway.used_limits import UsedLimits
from app.request_bodies import body_of
from app.settings import Settings
from models.gate.explain import explain
from models.limits_in_force import same_person
from models.reference import FIRM
from schemas.codec import JsonDecoder, encode
from schemas.records import Alert, Approval, Decision

_fields = JsonDecoder(dict[str, Any])

#: stands for who will approve, while what is asked for is checked
SOMEBODY = "(a second person)"
#: what a person may ask of a breaker, and the state it means
ACTIONS = {"halt": "halted", "reduce": "reducing", "kill": "killed", "resume": "active"}


class Writes:
    """Routes over the gateway's state; a write goes to Kafka and is seen when it comes back from there.

    Parameters
    ----------
    catch_up : waits until reference data that is on its topics by now has been read
    """

    def __init__(self, settings: Settings, state: GatewayState, used: UsedLimits,
                 catch_up: Callable[[], Awaitable[object]]) -> None:
        self.settings, self.state, self.used, self._catch_up = settings, state, used, catch_up
        self.approvals = state.approvals
        self._writing = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/limits", self.limits), Route("/api/limits/{id}", self.put_limit, methods=["PUT"]),
                Route("/api/limits/{id}", self.remove_limit, methods=["DELETE"]),
                Route("/api/alerts", self.alerts), Route("/api/alerts/{id}/ack", self.ack, methods=["POST"]),
                Route("/api/breakers", self.breakers),
                Route("/api/breakers/{scope}", self.set_breaker, methods=["POST"]),
                Route("/api/overrides", self.override, methods=["POST"]),
                Route("/api/approvals", self.waiting),
                Route("/api/approvals/{id}", self.approve, methods=["POST"]),
                Route("/api/orders/check", self.check, methods=["POST"]),
                Route("/api/decisions/{order_id}", self.decision)]

    async def limits(self, request: Request) -> Response:
        """`GET /api/limits?scope=`: limits of a node and how they stand; or all, and which are wider than above.

        A limit on money, and what it is held against, is in the firm's base currency, whatever the node is stated in.
        """
        scope, sight = request.query_params.get("scope"), sight_of(request, self.state)
        if scope is not None:
            sight.need(scope)
        found = [x for x in sight.limits(self.state.limits.values()) if scope is None or x.node == scope]
        stand = standings(self.state, self.used, found, time.time_ns())
        nobody = self.state.known_nodes.nobody
        rows = [msgspec.to_builtins(x) | s._asdict() | {"of_nobody": nobody(x.node)}
                for x, s in zip(found, stand, strict=True)]
        answer: dict[str, Any] = {"base_currency": self.settings.base_currency, "limits": rows}
        if scope is None:
            parents = control.parents_of(self.state.book.reference.account_records.values(), self.state.levels)
            answer["wider_than_above"] = control.unlike_parents(found, parents)
        return json_answer(answer)

    async def put_limit(self, request: Request) -> Response:
        """`PUT /api/limits/{id}` {limit, reason, node?, metric?, mode?, minutes?, two_people?, unseen?}.

        With ``two_people`` it waits for a second person, and so does every raise of it from then on. A node that nobody
        has is refused, but with ``unseen``: who is to have it comes later.
        """
        user = need_role(request, "risk")
        fields = await _body(request) | {"limit_id": request.path_params["id"]}
        self._need_limit(request, fields)
        unseen, held = _taken(fields, "unseen"), self.state.limits.get(fields["limit_id"])
        for field, kind in (("node", ""), ("instrument", "instrument:")):
            if isinstance(name := fields.get(field), str) and name != getattr(held, field, None):
                await self._need_somebody(field, kind + name, unseen)
        if fields.pop("two_people", False):
            return await self._ask("limit", fields, user.name)
        return await self._set_or_ask(_no_names(fields), user.name)

    async def remove_limit(self, request: Request) -> Response:
        """`DELETE /api/limits/{id}` {reason}: it holds no more; one that two people set waits for a second person."""
        user = need_role(request, "risk")
        fields = {"limit_id": request.path_params["id"], "reason": (await _body(request)).get("reason"), "remove": True}
        self._need_limit(request, fields)
        return await self._set_or_ask(fields, user.name)

    async def _set_or_ask(self, fields: dict[str, Any], by: str) -> Response:
        """Write what one person may write, judged by what the topic has; else have it wait for a second one."""
        try:
            async with self._writing:  # the next write is judged by what this one made
                return await _write(control.set_limit(self.settings, fields, by))
        except control.NeedsSecond:
            return await self._ask("limit", fields, by)

    async def override(self, request: Request) -> Response:
        """`POST /api/overrides` {limit_id or order_id, limit, minutes, reason}: waits for a second person."""
        user = need_role(request, "risk")
        fields = await _body(request)
        self._need_limit(request, fields)
        return await self._ask("override", fields, user.name)

    def _need_limit(self, request: Request, fields: dict[str, Any]) -> None:
        """Refuse a write to a limit of a node that its user may not read, as it stands or as it is asked for."""
        sight, named = sight_of(request, self.state), str(fields.get("limit_id"))
        held = [self.state.limits[k] for k in (named, f"{named}~temporary", f"{named}~override")
                if k in self.state.limits]
        if "node" in fields:
            sight.need(str(fields["node"]))
        if len(sight.limits(held)) < len(held) or (not held and "node" not in fields):
            sight.need_whole(f"limit {named}")

    async def _need_somebody(self, field: str, node: str, unseen: bool) -> None:
        """Answer 404, with the nearest one there is, where nobody has a node, and who writes did not say so."""
        known = self.state.known_nodes
        if unseen or known.has(node):
            return
        await self._catch_up()  # an account may have been published just before
        if (why := known.nobody(node)) is not None:
            raise HTTPException(404, f"{field}: {why}; with unseen: true it stands for who comes later")

    async def _ask(self, kind: Literal["override", "limit"], fields: dict[str, Any], by: str) -> Response:
        """Check what is asked for as if it were approved, keep it, and say so on the topic of alerts."""
        check = control.next_override if kind == "override" else control.next_limit
        try:
            made = await check(self.settings, _no_names(fields) | {"approved_by": SOMEBODY}, by)
        except control.Refused as error:
            raise HTTPException(400, str(error)) from error
        if kind == "limit" and not fields.get("remove") and made.limit_id == fields["limit_id"]:
            fields = {"version": made.version - 1} | fields  # a second person approves of what was asked about
        now = time.time_ns()
        asked = new_approval(kind, fields, by, now)
        await control.publish(self.settings, "approvals", asked.approval_id, asked)
        self.approvals.take_in(asked.approval_id, asked)
        alert = Alert(alert_id=f"approval.{asked.approval_id}", kind="override", node=made.node, metric=made.metric,
                      value=None, limit=float(made.limit), utilisation=None, cause_ts=now, raised_ts=now, snapshot_id=0,
                      limit_id=made.limit_id, note=f"{by} asks: {made.reason}; approval {asked.approval_id}")
        await control.publish(self.settings, "alerts", made.node, alert)
        return Response(msgspec.json.encode(asked), 202, media_type="application/json")

    async def waiting(self, request: Request) -> Response:
        """`GET /api/approvals`: what waits for a second person."""
        sight = sight_of(request, self.state)
        return json_answer([asked for asked in self.approvals.waiting(time.time_ns())
                            if sight.sees_approval(asked, self.state.limits)])

    async def approve(self, request: Request) -> Response:
        """`POST /api/approvals/{id}` {refuse?}: a second person who is signed in approves, or either one refuses."""
        user = need_role(request, "risk")
        refused = (await _body(request)).get("refuse", False)
        asked = self.approvals.find(request.path_params["id"], time.time_ns())
        if asked is None or not sight_of(request, self.state).sees_approval(asked, self.state.limits):
            raise HTTPException(404, f"approval {request.path_params['id']!r}: it does not wait (any more)")
        if refused:
            self.approvals.decide(asked)
            await self._decided(asked, user.name, "refused")
            return json_answer({"refused": asked, "by": user.name})
        if same_person(user.name, asked.by):
            raise HTTPException(403, f"approved_by: expected a second person, was {user.name!r} who asked for it")
        write = control.set_override if asked.kind == "override" else control.set_limit
        self.approvals.decide(asked)
        try:
            async with self._writing:
                answer = await _write(write(self.settings, asked.fields | {"approved_by": user.name}, asked.by))
        except BaseException:
            self.approvals.put_back(asked)
            raise
        await self._decided(asked, user.name, "approved")
        return answer

    async def _decided(self, asked: Approval, by: str, note: str) -> None:
        """Take what was asked for away, and note on its alert who decided."""
        await control.publish(self.settings, "approvals", asked.approval_id, None)
        alert = self.state.alerts.get(f"approval.{asked.approval_id}")
        if alert is not None:
            await control.acknowledge(self.settings, alert, by, f"{alert.note}: {note}")

    async def alerts(self, request: Request) -> Response:
        """`GET /api/alerts`: the newest first."""
        sight = sight_of(request, self.state)
        return json_answer([a for a in reversed(self.state.alerts.values()) if sight.sees_alert(a)][:1000])

    async def ack(self, request: Request) -> Response:
        """`POST /api/alerts/{id}/ack` {note}."""
        user = need_role(request, "risk")
        alert = self.state.alerts.get(request.path_params["id"])
        if alert is None or not sight_of(request, self.state).sees_alert(alert):
            raise HTTPException(404, f"alert {request.path_params['id']!r} is not known")
        note = str((await _body(request)).get("note", ""))
        return await _write(control.acknowledge(self.settings, alert, user.name, note))

    async def breakers(self, request: Request) -> Response:
        """`GET /api/breakers`: every scope that was ever set; ``of_nobody`` where nobody has it."""
        sight, nobody = sight_of(request, self.state), self.state.known_nodes.nobody  # which names others
        return json_answer([msgspec.to_builtins(c) | {"of_nobody": nobody(c.scope) if sight.whole else None}
                            for c in map(sight.control, self.state.controls.values()) if c is not None])

    async def set_breaker(self, request: Request) -> Response:
        """`POST /api/breakers/{scope}` {action: halt|reduce|kill|resume, reason, rev?, unseen?}.

        A scope that nobody has, and that has no state, is refused; with ``unseen`` it waits for who comes later.
        """
        user = need_role(request, "risk")
        scope = request.path_params["scope"]
        sight_of(request, self.state).need(FIRM if scope == "all" else scope)
        fields = await _body(request)
        action = fields.get("action")
        if action not in ACTIONS:
            raise HTTPException(400, f"action: expected one of {', '.join(ACTIONS)}, was {action!r}")
        rev = fields.get("rev")
        if rev is not None and not isinstance(rev, int):
            raise HTTPException(400, f"rev: expected a whole number, was {rev!r}")
        await self._need_somebody("scope", scope, _taken(fields, "unseen") or scope in self.state.controls)
        return await _write(control.set_state(self.settings, scope, ACTIONS[action], user.name,
                                              str(fields.get("reason", "")), rev))

    async def check(self, request: Request) -> Response:
        """`POST /api/orders/check` {order}: what the gate says; with `dry_run: false` (role `trader`) it counts."""
        fields = await _body(request)
        if not fields.setdefault("dry_run", True):
            need_role(request, "trader")
        sight = sight_of(request, self.state)
        sight.need_account(str(fields.get("account")))
        path = self.settings.gate_socket
        if path is None:
            raise HTTPException(503, "no local gate: set DESKRISK_GATE_SOCKET to that of a worker on this machine")
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            raise HTTPException(503, f"the local gate does not answer: {error}") from error
        try:
            writer.write(encode(fields) + b"\n")
            answer = await asyncio.wait_for(reader.readline(), 5.0)
        finally:
            writer.close()
        found = msgspec.json.decode(answer, type=dict[str, Any])
        if "error" not in found and not sight.whole:
            answer = encode(sight.decision(msgspec.convert(found, Decision)))
        return Response(answer, 400 if "error" in found else 200, media_type="application/json")

    async def decision(self, request: Request) -> Response:
        """`GET /api/decisions/{order_id}?account=`: the verdict, its inputs, and what is reached anew from them."""
        sight, account = sight_of(request, self.state), request.query_params.get("account")
        if account is not None:
            sight.need_account(account)
        on_log = await decisions_of(self.settings, request.path_params["order_id"], account=account)
        found = [d for d in map(sight.decision, on_log) if d is not None]
        if not found:
            raise HTTPException(404, f"no decision on {request.path_params['order_id']!r}")
        first, again, why, differences = found[0], None, None, None
        if first.inputs and first.order is not None:
            try:
                explained = explain(first.inputs, first.order)
                again, differences = [r.code for r in explained.reasons], explained.differs_from(first)
            except ValueError as error:  # of another version: what it was is on the log, not what it would be
                why = str(error)
        elif not sight.whole:
            why = "inputs: they show nodes outside of what you may read"
        return json_answer({"decision": first, "again": again, "differences": differences, "why_not": why,
                            "later": found[1:]})


async def _body(request: Request) -> dict[str, Any]:
    try:
        return _fields.decode(await body_of(request) or b"{}")
    except msgspec.DecodeError as error:
        raise HTTPException(400, f"body: expected a JSON object: {error}") from error


def _taken(fields: dict[str, Any], name: str) -> bool:
    """Take a field that is true or false out of a body; absent it is false."""
    value = fields.pop(name, False)
    if not isinstance(value, bool):
        raise HTTPException(400, f"{name}: expected true or false, was {value!r}")
    return value


def _no_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Refuse a second person who is only a name: whoever approves signs in."""
    if "approved_by" in fields:
        raise HTTPException(400, "approved_by: expected a second person who approves it at /api/approvals, was the "
                                 f"name {fields['approved_by']!r}")
    return fields


async def _write(work: Any) -> Response:
    try:
        return json_answer(await work)
    except control.NeedsSecond:
        raise
    except control.Refused as error:
        raise HTTPException(409 if str(error).startswith(("rev:", "version:")) else 400, str(error)) from error

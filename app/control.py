"""Writes of people: limits, trading states, acknowledgements; each a record with who, why and a version."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from app.rule_topics import Refused as Refused
from app.rule_topics import current as current
from app.rule_topics import current_controls, current_limits, one_writer, unraced
from app.rule_topics import publish as publish
from app.settings import Settings
from models.gate.limit_nodes import METRICS_OF_LIMITS, check_limit, check_scope, scopes_of
from models.known_nodes import KnownNodes
from models.limit_changes import needs_second
from models.limits import STILL, is_still_approached
from models.limits_in_force import end_of, same_person
from models.reference import FIRM, LEVELS, Reference
from schemas.market import Touch
from schemas.records import Account, Alert, Control, Instrument, Limit

REASON_MIN = 10
#: a limit that is taken away by two people ended this long ago: before the time of the record that withdraws it
ENDED_NS = 1_000_000_000
#: what may be said of a limit
FIELDS_OF_LIMITS = frozenset({"limit_id", "node", "metric", "limit", "warn", "mode", "window_ms", "instrument",
                              "action", "minutes", "reason", "approved_by", "remove", "version"})
#: how long an override may last, and any other limit that ends by itself
OVERRIDE_MINUTES_MAX, LIMIT_MINUTES_MAX = 60, 7 * 24 * 60


class NeedsSecond(Refused):
    """A write that one person alone may not make."""


def check_reason(reason: str) -> str:
    """Return a reason that says something."""
    if len(reason.strip()) < REASON_MIN:
        raise Refused(f"reason: expected at least {REASON_MIN} characters, was {reason!r}")
    return reason.strip()


def check_person(by: str) -> str:
    """Return the name of a person."""
    if not by.strip() or same_person(by, "deskrisk"):
        raise Refused(f"by: expected the name of a person, was {by!r}")
    return by.strip()


def next_version(held: Limit | None, fields: dict[str, Any], by: str, now_ns: int,
                 levels: Sequence[str] = LEVELS) -> Limit:
    """Return the next version of a limit as its fields say; whether one person may write it is not looked at.

    One that ends by itself stands beside the lasting one of its name, under ``NAME~temporary``: what it stands in for
    comes back.

    Parameters
    ----------
    levels : of the hierarchy

    Raises
    ------
    Refused
        The node, metric or value is none, a field is not known, or the reason says nothing.
    """
    if unknown := sorted(fields.keys() - FIELDS_OF_LIMITS):
        raise Refused(f"{unknown[0]}: expected one of {', '.join(sorted(FIELDS_OF_LIMITS))}, "
                      f"was {fields[unknown[0]]!r}")
    node = str(fields.get("node", held.node if held else ""))
    metric = str(fields.get("metric", held.metric if held else ""))
    limit_id = str(fields["limit_id"])
    kinds = (*scopes_of(levels), "order")
    if node != "firm" and (node.partition(":")[0] not in kinds or not node.partition(":")[2]):
        raise Refused(f"node: expected firm or one of {', '.join(kinds)} with a name, was {node!r}")
    if metric != "override" and metric not in METRICS_OF_LIMITS:
        raise Refused(f"metric: expected one of {', '.join(sorted(METRICS_OF_LIMITS))}, was {metric!r}")
    value = _number_of(fields.get("limit", held.limit if held else ""))
    reason, approver = check_reason(str(fields.get("reason", ""))), fields.get("approved_by")
    if approver is not None and same_person(check_person(str(approver)), by):
        raise Refused(f"approved_by: expected a second person, was {approver!r} twice")
    until = _end_of(held, fields.get("minutes"), now_ns)
    beside = held is not None and held.limit_id == limit_id and held.until is None and until is not None
    known = {f: fields[f] for f in ("warn", "mode", "window_ms", "instrument", "action") if fields.get(f) is not None}
    base = {f: getattr(held, f) for f in ("warn", "mode", "window_ms", "instrument", "action")} if held else {}
    stays = held is not None and held.limit_id == limit_id and not beside
    if fields.get("version") not in (None, held.version if held else 0):
        raise Refused(f"version: expected {held.version if held else 0}, was {fields['version']!r}: "
                      "somebody changed the limit meanwhile")
    try:
        limit = msgspec.convert(base | known | {
            "limit_id": f"{limit_id}~temporary" if beside else limit_id, "node": node, "metric": metric, "limit": value,
            "by": check_person(by), "version": (held.version if held else 0) + 1, "reason": reason, "until": until,
            # one that two people set stays theirs, also when one of them lowers it
            "approved_by": approver if approver is not None or held is None or not stays else _other(held, by)},
            Limit, strict=False)
        check_limit(limit, levels)
    except ValueError as error:
        raise Refused(str(error)) from None
    return limit


def _other(held: Limit, by: str) -> str | None:
    """Return who beside a person agreed to a limit; None: one person set it."""
    return held.by if held.approved_by is not None and same_person(held.approved_by, by) else held.approved_by


def _number_of(value: Any) -> Decimal:
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Refused(f"limit: expected a number, was {value!r}") from None
    return found


def _end_of(held: Limit | None, minutes: Any, now_ns: int) -> str | int | None:
    """Return when a limit ends: so many minutes from now, or as it does already; None: it lasts."""
    if minutes is None:
        end = None if held is None else end_of(held)
        return None if held is None or end is None or end <= now_ns else held.until
    check_minutes(minutes, LIMIT_MINUTES_MAX)
    return (datetime.fromtimestamp(now_ns // 1_000 / 1e6, UTC) + timedelta(minutes=float(minutes))).isoformat()


def check_minutes(minutes: Any, most: int) -> None:
    """Say what is wrong with a duration."""
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= most:
        raise Refused(f"minutes: expected above 0 and at most {most}, was {minutes!r}")


def new_limit(standing: Mapping[str, Limit], fields: dict[str, Any], by: str, now_ns: int,
              levels: Sequence[str] = LEVELS) -> Limit:
    """Return the next version of a limit.

    Raises
    ------
    Refused
        As `next_version`; `NeedsSecond` where it lets more pass than two people agreed on, and one asks for it.
    """
    limit = next_version(standing.get(str(fields["limit_id"])), fields, by, now_ns, levels)
    before = standing.get(limit.limit_id)
    if before is not None and limit.version <= before.version:
        limit = msgspec.structs.replace(limit, version=before.version + 1)
    _check_second(standing, limit.limit_id, limit, fields, now_ns)
    return limit


def _check_second(standing: Mapping[str, Limit], limit_id: str, after: Limit | None, fields: dict[str, Any],
                  now_ns: int) -> None:
    why = needs_second(standing, limit_id, after, now_ns)
    if why is not None and fields.get("approved_by") is None:
        raise NeedsSecond(f"approved_by: expected a second person: {why}")


def new_control(held: Control | None, scope: str, state: str, by: str, reason: str, rev: int | None = None,
                levels: Sequence[str] = LEVELS) -> Control:
    """Return the next state of a scope.

    Raises
    ------
    Refused
        The scope or state is none, the reason says nothing, or ``rev`` is not the one that stands.
    """
    if scope == FIRM:
        raise Refused(f"scope: expected all, which is the whole firm, was {scope!r}")
    try:
        check_scope(scope, levels)
    except ValueError as error:
        raise Refused(str(error)) from None
    if state not in ("active", "reducing", "halted", "killed"):
        raise Refused(f"state: expected active, reducing, halted or killed, was {state!r}")
    stands = held.rev if held else 0
    if rev is not None and rev != stands:
        raise Refused(f"rev: expected {stands}, was {rev}: somebody changed the scope meanwhile")
    return Control(scope=scope, state=state, by=check_person(by), reason=check_reason(reason),  # type: ignore[arg-type]
                   ts=time.time_ns(), rev=stands + 1)


async def known_nodes(settings: Settings) -> KnownNodes:
    """Return which nodes the reference data name."""
    reference = Reference(lambda account: 0)
    for account in (await current(settings, "reference.accounts", Account)).values():
        reference.add_account(account)
    for instrument in (await current(settings, "reference.instruments", Instrument)).values():
        try:
            reference.add_instrument(instrument)
        except ValueError:  # every reader has refused it
            continue
    return KnownNodes(reference, settings.levels)


async def need_somebody(settings: Settings, *nodes: str) -> None:
    """Say which of some nodes nobody has.

    Raises
    ------
    Refused
        With the nearest one that somebody has.
    """
    if set(nodes) <= {"all", FIRM}:
        return
    known = await known_nodes(settings)
    for node in nodes:
        if (why := known.nobody(node)) is not None:
            raise Refused(f"{why}; with --unseen it stands for who comes later")


async def next_limit(settings: Settings, fields: dict[str, Any], by: str) -> Limit:
    """Return the next version of a limit, or the one that ``remove`` takes away; nothing is written."""
    standing = await current_limits(settings)
    if fields.get("remove"):
        return limit_to_remove(standing, fields, by, time.time_ns())
    return new_limit(standing, fields, by, time.time_ns(), settings.levels)


def limit_to_remove(standing: Mapping[str, Limit], fields: dict[str, Any], by: str, now_ns: int) -> Limit:
    """Return a limit that may be taken away.

    Raises
    ------
    Refused
        There is none, the reason says nothing, or more would pass than two people agreed on (`NeedsSecond`).
    """
    held = standing.get(str(fields["limit_id"]))
    if held is None:
        raise Refused(f"limit_id: expected a limit that exists, was {fields['limit_id']!r}")
    check_reason(str(fields.get("reason", "")))
    check_person(by)
    approver = fields.get("approved_by")
    if approver is not None and same_person(check_person(str(approver)), by):
        raise NeedsSecond(f"approved_by: expected a second person, was {approver!r} twice")
    _check_second(standing, held.limit_id, None, fields, now_ns)
    return held


async def set_limit(settings: Settings, fields: dict[str, Any], by: str) -> Limit:
    """Write the next version of a limit, or take it away (``remove``); return it.

    One that two people take away ends first, as they agreed, and is withdrawn then: so readers see who did.
    """
    async def write() -> Limit:
        async with one_writer(settings, "limits") as put:
            standing, now_ns = await current_limits(settings), time.time_ns()
            if not fields.get("remove"):
                limit = new_limit(standing, fields, by, now_ns, settings.levels)
                await put([(limit.limit_id, limit)])
                return limit
            held = limit_to_remove(standing, fields, by, now_ns)
            await put(withdrawal(standing, held, fields, by, now_ns), by=by, reason=str(fields["reason"]))
            return held
    return await unraced(write)


def withdrawal(standing: Mapping[str, Limit], held: Limit, fields: dict[str, Any], by: str, now_ns: int,
               ) -> list[tuple[str, Limit | None]]:
    """Return the records that take a limit away."""
    out: list[tuple[str, Limit | None]] = [(held.limit_id, None)]
    if needs_second(standing, held.limit_id, None, now_ns) is not None:
        out.insert(0, (held.limit_id, msgspec.structs.replace(
            held, version=held.version + 1, by=by, approved_by=str(fields["approved_by"]),
            reason=str(fields["reason"]), until=now_ns - ENDED_NS)))
    return out


async def next_override(settings: Settings, fields: dict[str, Any], by: str) -> Limit:
    """Return an override, of one limit or of one order: two people, a reason, and it ends by itself."""
    limit_id, order_id, minutes = fields.get("limit_id"), fields.get("order_id"), fields.get("minutes")
    if (limit_id is None) == (order_id is None):
        raise Refused(f"limit_id, order_id: expected one of them, was {limit_id!r} and {order_id!r}")
    check_minutes(minutes, OVERRIDE_MINUTES_MAX)
    if not fields.get("approved_by"):
        raise Refused(f"approved_by: expected a second person, was {fields.get('approved_by')!r}")
    standing, now_ns = await current_limits(settings), time.time_ns()
    asked = {k: fields[k] for k in ("limit", "reason", "minutes", "approved_by") if fields.get(k) is not None}
    if order_id is not None:
        node = f"order:{order_id}"
        wanted = {"limit_id": f"{node}~override", "node": node, "metric": "override"}
        return new_limit(standing, asked | wanted, by, now_ns, settings.levels)
    held = standing.get(str(limit_id))
    if held is None:
        raise Refused(f"limit_id: expected a limit that exists, was {limit_id!r}")
    made = next_version(held, asked | {"limit_id": f"{limit_id}~override"}, by, now_ns, settings.levels)
    before = standing.get(made.limit_id)
    return made if before is None else msgspec.structs.replace(made, version=max(made.version, before.version + 1))


async def set_override(settings: Settings, fields: dict[str, Any], by: str) -> Limit:
    """Write an override (see `next_override`); return it."""
    async def write() -> Limit:
        async with one_writer(settings, "limits") as put:
            made = await next_override(settings, fields, by)
            await put([(made.limit_id, made)])
            return made
    return await unraced(write)


async def set_state(settings: Settings, scope: str, state: str, by: str, reason: str,
                    rev: int | None = None) -> Control:
    """Write the next state of a scope; return it."""
    async def write() -> Control:
        async with one_writer(settings, "controls") as put:
            held = (await current_controls(settings)).get(scope)
            control = new_control(held, scope, state, by, reason, rev, settings.levels)
            await put([(scope, control)])
            return control
    return await unraced(write)


async def set_touched(settings: Settings, option: str, touched: bool, by: str, reason: str) -> Touch:
    """Write that the barrier of an option was touched, or that it was not; return the record."""
    held = (await current(settings, "reference.instruments", Instrument)).get(option)
    if held is None or held.barrier_kind is None:
        raise Refused(f"instrument: expected an option with a barrier, was {option!r}")
    touch = Touch(instrument=option, touched=touched, ts_event=time.time_ns(), by=check_person(by),
                  reason=check_reason(reason))
    await publish(settings, "touches", option, touch)
    return touch


def acknowledged(alert: Alert, by: str, note: str) -> Alert:
    """Return the record that a person has seen an alert; the note of one that says what stands goes on saying so."""
    return msgspec.structs.replace(alert, ack_by=check_person(by),
                                   note=f"{STILL}: {note}" if is_still_approached(alert) else note)


async def acknowledge(settings: Settings, alert: Alert, by: str, note: str) -> Alert:
    """Write that a person has seen an alert; return the record."""
    seen = acknowledged(alert, by, note)
    await publish(settings, "alerts", alert.node, seen)
    return seen


def parents_of(accounts: Iterable[Account], levels: Sequence[str]) -> dict[str, str]:
    """Return which node lies directly above each node of the tree."""
    parents: dict[str, str] = {}
    for account in accounts:
        chain = [f"{level}:{name}" for level in levels if level != FIRM and (name := account.under(level))]
        parents.update(itertools.pairwise([f"account:{account.account}", *chain, FIRM]))
    return parents


def unlike_parents(limits: list[Limit], parent_of: dict[str, str]) -> list[str]:
    """Return a line for every limit that is wider than the same limit of a node above it."""
    by_node = {(x.node, x.metric): x for x in limits}
    out = []
    for x in limits:
        node = parent_of.get(x.node)
        while node is not None:
            above = by_node.get((node, x.metric))
            if above is not None and above.limit < x.limit:
                out.append(f"{x.limit_id}: {x.limit} on {x.node} is above {above.limit} on {node} ({above.limit_id})")
            node = parent_of.get(node)
    return out

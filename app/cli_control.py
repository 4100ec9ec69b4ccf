"""The commands of the order path: limits, halt, resume, override, decisions."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from app.cli_common import (
    EXIT_DIFFERENT,
    EXIT_FAILED,
    GATEWAY_URL,
    AsJson,
    Brokers,
    By,
    Gateway,
    fail,
    run,
    show_table,
    with_brokers,
)

limits_cli = typer.Typer(no_args_is_help=True, help="Limits: versioned, with who and why.")
barriers_cli = typer.Typer(no_args_is_help=True, help="Barriers of options: which were touched.")
approvals_cli = typer.Typer(no_args_is_help=True, help="What waits for a second person.")
decisions_cli = typer.Typer(no_args_is_help=True, help="Decisions on orders, and why.")
OfAccount = Annotated[str | None, typer.Option("--account", help="Of this account: a part of the log has them all.")]
Unseen = Annotated[bool, typer.Option("--unseen", help="Though nobody has it: who is to have it comes later.")]
Why = Annotated[str, typer.Option(help="Why; at least ten characters.")]


def _print(record: Any) -> None:
    typer.echo(msgspec.json.encode(record).decode())


@limits_cli.command("show")
def limits_show(brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Every limit as it stands."""
    from app.rule_topics import current_limits

    found = run(current_limits(with_brokers(brokers=brokers)))
    if as_json:
        _print(list(found.values()))
        return
    table = Table("limit", "node", "metric", "limit", "warn", "mode", "action", "version", "by", "reason", "until")
    for x in sorted(found.values(), key=lambda x: x.limit_id):
        table.add_row(x.limit_id, x.node, x.metric, str(x.limit), f"{x.warn:g}", x.mode, x.action, str(x.version), x.by,
                      x.reason, str(x.until or ""))
    show_table(table)


@limits_cli.command("used")
def limits_used(node: Annotated[str | None, typer.Argument(help="Of this node alone: firm, desk:FX1, ...")] = None,
                gateway_url: Gateway = GATEWAY_URL, as_json: AsJson = False) -> None:
    """How much of each limit is used, the tightest first, as a gateway knows it."""
    from app.show import get_json

    found = run(get_json(f"{gateway_url}/api/limits", {"scope": node} if node else {}))["limits"]
    found = sorted((x for x in found if x["in_force"]), key=lambda x: (-(x["utilisation"] or 0.0), x["limit_id"]))
    if as_json:
        _print(found)
        return
    table = Table("limit", "node", "metric", "now", "at most", "used", "state")
    for x in found:
        now = "" if x["value"] is None else f"{x['value']:,.6g}" + (" partial" if x["partial"] else "")
        used = "" if x["utilisation"] is None else f"{x['utilisation']:.1%}"
        table.add_row(x["limit_id"], x["node"], x["metric"], now, str(x["limit"]), used, x["state"])
    show_table(table)


@limits_cli.command("set")
def limits_set(limit_id: str, limit: Annotated[float, typer.Argument(help="In the firm's base currency.")],
               reason: Why, node: Annotated[str | None, typer.Option(help="firm, fund:ALPHA, trader:x, ...")] = None,
               metric: str | None = None, mode: str | None = None, warn: float | None = None,
               window_ms: int | None = None, instrument: str | None = None,
               action: Annotated[str | None, typer.Option(help="alert, reduce or halt when breached.")] = None,
               minutes: Annotated[float | None, typer.Option(help="Ends by itself after so long.")] = None,
               approved_by: str | None = None, unseen: Unseen = False, by: By = getpass.getuser(),
               brokers: Brokers = None) -> None:
    """Set a limit: the next version of it."""
    from app.control import need_somebody, set_limit

    settings, named = with_brokers(brokers=brokers), [*filter(None, (node, instrument and f"instrument:{instrument}"))]
    if named and not unseen:
        run(need_somebody(settings, *named))
    fields = {"limit_id": limit_id, "limit": limit, "reason": reason, "node": node, "metric": metric, "mode": mode,
              "warn": warn, "window_ms": window_ms, "instrument": instrument, "action": action, "minutes": minutes,
              "approved_by": approved_by}
    _print(run(set_limit(settings, {k: v for k, v in fields.items() if v is not None}, by)))


@limits_cli.command("remove")
def limits_remove(limit_id: str, reason: Why, approved_by: str | None = None, by: By = getpass.getuser(),
                  brokers: Brokers = None) -> None:
    """Take a limit away; who and why stay with the record that takes it away."""
    from app.control import set_limit

    fields = {"limit_id": limit_id, "reason": reason, "approved_by": approved_by, "remove": True}
    _print({"removed": run(set_limit(with_brokers(brokers=brokers), fields, by))})


@limits_cli.command("load")
def limits_load(path: Annotated[Path, typer.Argument(help="CSV or YAML: limit_id, node, metric, limit, and more.")],
                reason: Annotated[str | None, typer.Option(help="Of rows that give none.")] = None,
                prune: Annotated[bool, typer.Option(help="Remove lasting limits that are not in the file.")] = False,
                dry_run: Annotated[bool, typer.Option(help="Say what would change.")] = False,
                check: Annotated[bool, typer.Option("--check", help="The file alone, no broker.")] = False,
                watch: Annotated[bool, typer.Option(help="Load it again whenever it changes.")] = False,
                by: By = getpass.getuser(), brokers: Brokers = None) -> None:
    """Have the limits of a file stand: all of it or nothing, each change a version with who and why."""
    from app.control import Refused
    from app.limit_files import check_limits_of, load_limits, watch_limits
    from app.supervisor import on_signals

    if check:
        try:
            _print({"right": check_limits_of(path, by), "written": False})
        except Refused as error:
            raise fail(path.name, f"refused\n{error}", EXIT_FAILED) from error
        return
    settings = with_brokers(brokers=brokers)

    async def once() -> None:
        found = await load_limits(settings, path, by, reason, prune, dry_run)
        _print({"set": [x.limit_id for x in found.set], "removed": [x.limit_id for x in found.removed],
                "same": found.same, "wider_than_above": found.wider, "of_nobody": found.of_nobody,
                "written": not dry_run})

    async def again() -> bool:
        try:
            await once()
        except ValueError as error:  # the next change may be right
            typer.echo(str(error), err=True)
        except (OSError, RuntimeError) as error:  # the broker is away, the file is being replaced
            typer.echo(f"{error!r}: tried again", err=True)
            return False
        return True

    async def follow() -> None:
        stop = asyncio.Event()
        on_signals(stop)
        await watch_limits(again, path, stop)

    run(follow() if watch else once())


@barriers_cli.command("show")
def barriers_show(brokers: Brokers = None) -> None:
    """Every barrier that was touched, or that somebody said was not: one JSON line each."""
    from app.control import current
    from schemas.market import Touch

    for _, touch in sorted(run(current(with_brokers(brokers=brokers), "touches", Touch)).items()):
        _print(touch)


@barriers_cli.command("set")
def barriers_set(instrument: str, reason: Why,
                 touched: Annotated[bool, typer.Option("--touched/--untouched", help="What holds from now on.")],
                 by: By = getpass.getuser(), brokers: Brokers = None) -> None:
    """State that a barrier was touched, or take back a touch that a wrong price caused."""
    from app.control import set_touched

    _print(run(set_touched(with_brokers(brokers=brokers), instrument, touched, by, reason)))


def halt(scope: Annotated[str, typer.Argument(help="all, fund:ALPHA, desk:..., account:..., trader:...")],
         reason: Why, state: Annotated[str, typer.Option(help="reducing, halted or killed.")] = "halted",
         unseen: Unseen = False, by: By = getpass.getuser(), brokers: Brokers = None) -> None:
    """Stop trading of a scope; it stays so until a person resumes it. `killed` also cancels what works."""
    from app.control import need_somebody, set_state

    if state == "active":
        raise fail("state", "expected reducing, halted or killed; `deskrisk resume` makes a scope active")
    settings = with_brokers(brokers=brokers)
    if not unseen:
        run(need_somebody(settings, scope))
    _print(run(set_state(settings, scope, state, by, reason)))


def resume(scope: str, reason: Why, by: By = getpass.getuser(), brokers: Brokers = None) -> None:
    """Let a scope trade again; a limit that is still breached trips it once more."""
    from app.control import set_state

    _print(run(set_state(with_brokers(brokers=brokers), scope, "active", by, reason)))


def override(limit: Annotated[float, typer.Argument(help="The limit meanwhile; of an order, its value at most.")],
             minutes: float, reason: Why,
             approved_by: Annotated[str | None, typer.Option(
                 help="The second person, by name; without it they approve it themselves (`approvals`).")] = None,
             limit_id: Annotated[str | None, typer.Option("--limit", help="The limit to raise.")] = None,
             order_id: Annotated[str | None, typer.Option("--order", help="The one order to let pass.")] = None,
             by: By = getpass.getuser(), brokers: Brokers = None, gateway_url: Gateway = GATEWAY_URL) -> None:
    """Raise one limit, or let one order pass its limits: two people, and it ends by itself."""
    from app.control import set_override
    from app.show import post_json

    fields = {"limit_id": limit_id, "order_id": order_id, "limit": limit, "minutes": minutes, "reason": reason}
    if approved_by is None:
        asked = {k: v for k, v in fields.items() if v is not None}
        _print(run(post_json(f"{gateway_url}/api/overrides", asked)))
        return
    _print(run(set_override(with_brokers(brokers=brokers), fields | {"approved_by": approved_by}, by)))


@approvals_cli.command("show")
def approvals_show(gateway_url: Gateway = GATEWAY_URL) -> None:
    """What waits for a second person: one JSON line each."""
    from app.show import get_json

    for asked in run(get_json(f"{gateway_url}/api/approvals", {})):
        _print(asked)


@approvals_cli.command("approve")
def approvals_approve(approval_id: str, refuse: Annotated[bool, typer.Option(help="Refuse it instead.")] = False,
                      gateway_url: Gateway = GATEWAY_URL) -> None:
    """Approve what somebody else asked for; who you are is said by DESKRISK_API_TOKEN."""
    from app.show import post_json

    _print(run(post_json(f"{gateway_url}/api/approvals/{approval_id}", {"refuse": refuse})))


@decisions_cli.command("show")
def decisions_show(order_id: Annotated[str | None, typer.Argument()] = None, account: OfAccount = None,
                   brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Decisions of an order, or the newest ones."""
    from app.decisions import decisions_of

    found = run(decisions_of(with_brokers(brokers=brokers), order_id, account=account))
    if as_json:
        _print([msgspec.structs.replace(d, inputs={}) for d in found])
        return
    table = Table("order", "account", "instrument", "outcome", "primary reason", "measured", "limit", "node", "µs")
    for d in found:
        first = d.reasons[0] if d.reasons else None
        table.add_row(d.order_id, d.account, d.instrument, d.outcome, first.code if first else "",
                      first.measured if first else "", first.limit if first else "",
                      (first.node or "") if first else "", f"{d.service_ns / 1e3:.1f}")
    show_table(table)


@decisions_cli.command("explain")
def decisions_explain(order_id: str, account: OfAccount = None, brokers: Brokers = None) -> None:
    """Evaluate an order anew from what the gate saw: the same verdict, bit for bit (exit 3 where it is not)."""
    from app.decisions import decisions_of
    from models.gate.explain import explain
    from schemas.controls import MEANING, Check

    found = run(decisions_of(with_brokers(brokers=brokers), order_id, account=account))
    if not found:
        raise fail("order_id", f"no decision on {order_id!r}", EXIT_FAILED)
    decision = found[0]
    recorded = {r.code for r in decision.reasons}
    if not decision.inputs or decision.order is None:
        typer.echo(json.dumps({"order_id": order_id, "outcome": decision.outcome, "reasons": sorted(recorded),
                               "reproduced": None, "why": "decided without the kernel: a cancel or an unknown order"}))
        return
    try:
        found_again = explain(decision.inputs, decision.order)
    except ValueError as error:  # of another version of the code
        raise fail("order_id", f"{order_id!r} cannot be evaluated anew: {error}", EXIT_FAILED) from error
    differences = found_again.differs_from(decision)
    typer.echo(msgspec.json.encode({  # what is no number is null: NaN is not JSON
        "order_id": order_id, "outcome": decision.outcome, "reproduced": not differences, "differences": differences,
        "effect": decision.effect, "service_us": decision.service_ns / 1e3,
        "reasons": [msgspec.to_builtins(r) | dict(zip(("meaning", "rule"), MEANING[Check[r.code]], strict=True))
                    for r in decision.reasons],
        "warnings": [msgspec.to_builtins(r) for r in decision.warnings], "snapshot_id": decision.snapshot_id,
        "limits_version": decision.limits_version, "seen": found_again.seen}).decode())
    raise typer.Exit(EXIT_DIFFERENT if differences else 0)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(limits_cli, name="limits")
    cli.add_typer(barriers_cli, name="barriers")
    cli.add_typer(approvals_cli, name="approvals")
    cli.add_typer(decisions_cli, name="decisions")
    for command in (halt, resume, override):
        cli.command()(command)

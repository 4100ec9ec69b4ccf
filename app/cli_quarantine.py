"""The commands of what was not applied: show, explain, bring back."""

from __future__ import annotations

import getpass
import json
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli_common import EXIT_FAILED, AsJson, Brokers, By, fail, run, show_table, with_brokers
from app.settings import Settings
from schemas.records import Quarantined

quarantine_cli = typer.Typer(no_args_is_help=True, help="Records that were not applied: why, and back again.")
OfTopic = Annotated[str | None, typer.Option("--topic", help="Of this topic alone.")]
OfReason = Annotated[str | None, typer.Option("--reason", help="Of this reason alone: unknown_account, ...")]
Since = Annotated[str | None, typer.Option(help="A time (2026-11-20T14:30:00Z), or so long ago: 90s, 15m, 2h, 3d.")]


def _found(settings: Settings, topic: str | None, reason: str | None, since: str | None) -> list[Quarantined]:
    from app.quarantine import read_quarantine, since_ns

    async def read() -> list[Quarantined]:
        after = since_ns(since, time.time_ns())
        log = await read_quarantine(settings)
        name = None if topic is None else settings.prefix + topic.removeprefix(settings.prefix)
        return log.chosen(name, reason, after)

    found: list[Quarantined] = run(read())
    return found


def _one(records: list[Quarantined], wanted: str) -> Quarantined:
    from models.quarantined import id_of

    for record in records:
        if wanted in (id_of(record), f"{record.topic}-{record.partition}-{record.offset}"):
            return record
    raise fail("id", f"expected one of `deskrisk quarantine show`, was {wanted!r}", EXIT_FAILED)


@quarantine_cli.command("show")
def show(topic: OfTopic = None, reason: OfReason = None, since: Since = None,
         limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 50,
         brokers: Brokers = None, as_json: AsJson = False) -> None:
    """What was not applied, the newest last, and how much of it by topic and reason."""
    from app.quarantine import when
    from models.quarantined import QuarantineLog, explained, id_of, state_of

    settings = with_brokers(brokers=brokers)
    found = sorted(_found(settings, topic, reason, since), key=lambda r: r.ts)
    counts = QuarantineLog(len(found) + 1)
    for record in found:
        counts.take(record)
    if as_json:
        rows = [explained(r, r.topic.removeprefix(settings.prefix)) for r in found[-limit:]]
        typer.echo(json.dumps({"waiting": counts.summary(), "records": rows}))
        return
    table = Table("record", "time", "reason", "detail", "state")
    for record in found[-limit:]:
        table.add_row(id_of(record), when(record.ts), record.reason, record.detail[:100], state_of(record))
    show_table(table)
    summary = Table("topic", "reason", "wait", "meaning")
    for line in counts.summary():
        summary.add_row(line["topic"], line["reason"], str(line["count"]), line["meaning"])
    show_table(summary)


@quarantine_cli.command("explain")
def explain(record_id: Annotated[str, typer.Argument(metavar="ID", help="As `show` names it: trades-3-1234.")],
            brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Why a record was not applied: field, value, what was expected, what to do."""
    from app.quarantine import when
    from models.quarantined import explained

    settings = with_brokers(brokers=brokers)
    record = _one(_found(settings, None, None, None), record_id)
    found = explained(record, record.topic.removeprefix(settings.prefix))
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(show_header=False)
    for key, value in (found | {"ts": when(record.ts)}).items():
        if value not in (None, ""):
            table.add_row(key.replace("_", " "), str(value))
    show_table(table)


@quarantine_cli.command("retry")
def retry(ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `show` names them.")] = None,
          everything: Annotated[bool, typer.Option("--all", help="All that the filters choose.")] = False,
          topic: OfTopic = None, reason: OfReason = None, since: Since = None,
          why: Annotated[str, typer.Option(help="Why; at least ten characters, goes into the record.")] = "",
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
          by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Publish records again where they came from (exit 1 where one of those named was not)."""
    from app.quarantine import retry as work

    if bool(ids) == everything:
        raise fail("ids", "expected ids, or --all with filters")
    settings = with_brokers(brokers=brokers)
    found = _found(settings, topic, reason, since)
    wanted = [_one(found, i) for i in ids or ()] if ids else [r for r in found if r.retried_ts is None]
    lines: list[dict[str, Any]] = run(work(settings, wanted, by, why, dry_run))
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "records": lines}))
    else:
        table = Table("record", "reason", "key", "done" if not dry_run else "would be done")
        for line in lines:
            done = line.get("why_not") or (f"published as {line['as']}" if line["done"] else line["effect"])
            table.add_row(line["id"], line["reason"], line.get("key") or "", done)
        show_table(table)
    raise typer.Exit(EXIT_FAILED if ids and any("why_not" in line for line in lines) else 0)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(quarantine_cli, name="quarantine")

"""The commands of operators: rewind, rebuild, reconcile."""

from __future__ import annotations

import asyncio
import getpass
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

err = Console(stderr=True, highlight=False)
EXIT_FAILED, EXIT_DIFFERENT = 1, 3
Brokers = Annotated[str | None, typer.Option(help="Kafka bootstrap servers (DESKRISK_BROKERS).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
By = Annotated[str, typer.Option(help="Who asks for it; goes into the audit record.")]


def _settings(brokers: str | None) -> Any:
    from app.cli import _need_brokers, settings_of

    settings = settings_of(brokers=brokers)
    _need_brokers(settings)
    return settings


def _report(work: Any, as_json: bool) -> dict[str, Any]:
    from app.recovery import report_text

    try:
        report: dict[str, Any] = asyncio.run(work)
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        err.print(f"[red]refused[/]: {error}", markup=True)
        raise typer.Exit(EXIT_FAILED) from error
    typer.echo(json.dumps(report) if as_json else report_text(report))
    return report


def rewind(to: Annotated[str, typer.Option(help="A time (2026-11-20T14:30:00Z), or offset:N of the changelog.")],
           table: Annotated[str, typer.Option(help="The table; `positions`.")] = "positions",
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, write nothing.")] = False,
           reason: Annotated[str, typer.Option(help="Why; goes into the audit record.")] = "",
           by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Rebuild a table as it was, prove it from the trades, roll it forward to now (exit 3 where rows were wrong)."""
    from app.control import Refused, check_reason
    from app.recovery import rewind as work

    if table != "positions":
        err.print(f"[red]--table[/]: expected positions, was {table!r}")
        raise typer.Exit(2)
    if not dry_run:
        try:
            check_reason(reason)
        except Refused as error:
            err.print(f"[red]refused[/]: {error}")
            raise typer.Exit(2) from error
    report = _report(work(_settings(brokers), to, dry_run, by, reason), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["wrong"] else 0)


def rebuild(yes: Annotated[bool, typer.Option("--yes", help="Put the rebuilt state in place.")] = False,
            reason: str = "", by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Replay all trades in trade-time order into a shadow table and compare it row by row (exit 3 where it differs)."""
    from app.control import Refused, check_reason
    from app.recovery import rebuild as work

    if yes:
        try:
            check_reason(reason)
        except Refused as error:
            err.print(f"[red]refused[/]: {error}")
            raise typer.Exit(2) from error
    report = _report(work(_settings(brokers), yes, by, reason), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["differences"] and not yes else 0)


def reconcile(every: Annotated[float | None, typer.Option(help="Again every so many seconds.")] = None,
              brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Compare positions with `positions.external` and the trade store (exit 3 where there are breaks)."""
    from app.reconcile import reconcile_every, run_reconcile

    settings = _settings(brokers)
    if every is not None:
        asyncio.run(reconcile_every(settings, every))
        return
    report = asyncio.run(run_reconcile(settings))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        table = Table("source", "account", "instrument", "field", "internal", "external", "age s")
        for b in report["rows"]:
            table.add_row(b["source"], b["account"], b["instrument"], b["field"], str(b["internal"]),
                          str(b["external"]), f"{b['age_s']:.0f}")
        Console().print(table)
        typer.echo(f"{report['positions']} positions, {report['statements']} statements, {report['breaks']} breaks")
    raise typer.Exit(EXIT_DIFFERENT if report["breaks"] else 0)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for command in (rewind, rebuild, reconcile):
        cli.command()(command)

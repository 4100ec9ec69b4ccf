"""The commands of operators: rewind, rebuild, reconcile."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli_common import (
    EXIT_DIFFERENT,
    AsJson,
    Brokers,
    By,
    Supervised,
    fail,
    run,
    show_table,
    start_process,
    with_brokers,
)


def _report(work: Any, as_json: bool) -> dict[str, Any]:
    from app.recovery import report_text

    report: dict[str, Any] = run(work)
    typer.echo(json.dumps(report) if as_json else report_text(report))
    return report


def _need_reason(reason: str) -> None:
    from app.control import Refused, check_reason

    try:
        check_reason(reason)
    except Refused as error:
        raise fail("--reason", error) from error


def skip(topic: str, partition: int, offset: Annotated[int, typer.Argument(help="Where the batch begins, as the "
                                                                                   "process that left says.")],
         record: Annotated[bool, typer.Option("--record", help="Only this record, of the topic decisions: it is none, "
                                                               "and the order it was about may work.")] = False,
         reason: Annotated[str, typer.Option(help="Why; goes into the audit record.")] = "",
         by: By = getpass.getuser(), brokers: Brokers = None) -> None:
    """Pass over a batch that cannot be read (exit code 81), or a record that is no decision: `quarantine` says so."""
    from app.unreadable import pass_over

    _need_reason(reason)
    run(pass_over(with_brokers(brokers=brokers), topic, partition, offset, by, reason, record))
    typer.echo(f"{topic} {partition}@{offset}: passed over by every process that starts from now on")


def rewind(to: Annotated[str, typer.Option(help="A time (2026-11-20T14:30:00Z), or offset:N of the changelog.")],
           table: Annotated[str, typer.Option(help="The table; `positions`.")] = "positions",
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, write nothing.")] = False,
           reason: Annotated[str, typer.Option(help="Why; goes into the audit record.")] = "",
           by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Rebuild a table as it was, prove it from the trades, roll it forward to now (exit 3 where rows were wrong)."""
    from app.recovery import rewind as work

    if table != "positions":
        raise fail("--table", f"expected positions, was {table!r}")
    if not dry_run:
        _need_reason(reason)
    report = _report(work(with_brokers(brokers=brokers), to, dry_run, by, reason), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["wrong"] else 0)


def rebuild(yes: Annotated[bool, typer.Option("--yes", help="Put the rebuilt state in place.")] = False,
            reason: str = "", by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Replay all trades in trade-time order into a shadow table and compare it row by row (exit 3 where it differs)."""
    from app.recovery import rebuild as work

    if yes:
        _need_reason(reason)
    report = _report(work(with_brokers(brokers=brokers), yes, by, reason), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["differences"] and not yes else 0)


def adopt(yes: Annotated[bool, typer.Option("--yes", help="Go on with these logs; what is gone is gone.")] = False,
          reason: str = "", by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Show where `trades` or `positions.external` are not what the table was folded from; accept it (exit 3 if not)."""
    from app.adopt import adopt as work

    if yes:
        _need_reason(reason)
    report = _report(work(with_brokers(brokers=brokers), yes, by, reason), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["differences"] and not yes else 0)


def reconcile(every: Annotated[float | None, typer.Option(help="Again every so many seconds.")] = None,
              reload: Annotated[bool, typer.Option(
                  help="Fold positions with new breaks, and no others, again from the log.")] = True,
              brokers: Brokers = None, as_json: AsJson = False, supervised: Supervised = False) -> None:
    """Compare positions with `positions.external` and the trade store (exit 3 where there are breaks)."""
    from app.reconcile import reconcile_every, run_reconcile

    settings = with_brokers(brokers=brokers)
    if every is not None:
        start_process(settings, "reconcile", supervised)
        run(reconcile_every(settings, every))
        return
    report = run(run_reconcile(settings, reload))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        table = Table("source", "account", "instrument", "field", "internal", "external", "age s")
        for b in report["rows"]:
            table.add_row(b["source"], b["account"], b["instrument"], b["field"], str(b["internal"]),
                          str(b["external"]), f"{b['age_s']:.0f}")
        show_table(table)
        typer.echo(f"{report['positions']} positions, {report['statements']} statements, {report['breaks']} breaks")
    raise typer.Exit(EXIT_DIFFERENT if report["breaks"] else 0)


def roll(at: Annotated[str | None, typer.Option(
             help="When the day begins (2026-11-20T22:00:00Z); unset: the running trading day.")] = None,
         closes: Annotated[bool, typer.Option(help="Freeze the latest marks as the prior closes.")] = True,
         daily: Annotated[bool, typer.Option(help="Stay, and roll at the beginning of every trading day.")] = False,
         reason: str = "", by: By = getpass.getuser(), brokers: Brokers = None, as_json: AsJson = False,
         supervised: Supervised = False) -> None:
    """Begin a day: freeze closes and what positions came to; late trades and corrections land in the day before."""
    from app.roll import roll as work
    from app.roll import roll_daily
    from schemas.units import parse_ts_ns

    settings = with_brokers(brokers=brokers)
    if daily:
        start_process(settings, "roll", supervised)
        run(roll_daily(settings, by))
        return
    _need_reason(reason)
    try:
        at_ns = parse_ts_ns(at, "--at") if at else settings.trading_day().begin_ns(time.time_ns())
    except ValueError as error:
        raise fail("--at", error) from error
    _report(work(settings, at_ns, closes, by, reason), as_json)


def backup(folder: Annotated[Path, typer.Argument(help="An empty folder.")], brokers: Brokers = None,
           as_json: AsJson = False) -> None:
    """Write everything that is the truth (facts, rules, decisions) to a folder: Parquet and a manifest."""
    from app.migration import backup as work

    _report(work(with_brokers(brokers=brokers), folder), as_json)


def restore(folder: Path,
            prefix: Annotated[str | None, typer.Option(help="Of the new topics (DESKRISK_PREFIX).")] = None,
            partitions: Annotated[int | None, typer.Option(help="Of the new topics (DESKRISK_PARTITIONS).")] = None,
            brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Write a backup to empty topics and prove its positions (exit 3 where they differ)."""
    from app.migration import restore as work

    report = _report(work(with_brokers(brokers=brokers, prefix=prefix, partitions=partitions), folder), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["differences"] else 0)


def repartition(to: Annotated[int, typer.Option(help="The new number of partitions.")],
                prefix: Annotated[str, typer.Option(help="Of the new topics; another one than now.")],
                brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Copy everything to topics with another number of partitions, proved (exit 3 where positions differ)."""
    from app.migration import repartition as work

    if not 1 <= to <= 1024:
        raise fail("--to", f"expected 1 to 1024, was {to}")
    report = _report(work(with_brokers(brokers=brokers), to, prefix), as_json)
    raise typer.Exit(EXIT_DIFFERENT if report["differences"] else 0)


def partitions(role: Annotated[str, typer.Option(help="positions, marks or gate.")] = "positions",
               seconds: Annotated[float, typer.Option("--for", help="How long to watch.")] = 5.0,
               brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Who owns each partition and how far behind it is; names what is hot or slow, and the keys that fill it."""
    from app.partitions import SOURCES
    from app.partitions import partitions_of as work

    if role not in SOURCES:
        raise fail("--role", f"expected one of {', '.join(SOURCES)}, was {role!r}")
    rows = run(work(with_brokers(brokers=brokers), role, seconds))
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        table = Table("partition", "owner", "arrived/s", "done/s", "behind", "behind s", "verdict", "its keys")
        for r in rows:
            behind_s = "-" if r["behind_s"] is None else f"{r['behind_s']:.1f}"
            table.add_row(str(r["partition"]), r["owner"] or "-", f"{r['arrived_per_s']:,.0f}",
                          f"{r['done_per_s']:,.0f}", f"{r['behind']:,}", behind_s, r["verdict"],
                          ", ".join(f"{k} {share:.0%}" for k, share in r["keys"]))
        show_table(table)
    raise typer.Exit(EXIT_DIFFERENT if any(r["verdict"] != "ok" for r in rows) else 0)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for command in (skip, rewind, rebuild, adopt, reconcile, roll, backup, restore, repartition, partitions):
        cli.command()(command)

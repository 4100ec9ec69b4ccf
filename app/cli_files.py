"""Commands of files: the replay of ticks and trades, a look at a history."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli_common import EXIT_FAILED, AsJson, Brokers, err, fail, run, settings_of, show_table, with_brokers


def replay(files: list[Path],
           speed: Annotated[float, typer.Option(min=0.0, help="Times real time; 0: as fast as it goes.")] = 1.0,
           as_is: Annotated[bool, typer.Option(help="Keep the files' times (default: moved to now).")] = False,
           limit: Annotated[int | None, typer.Option(min=1, help="Records at most.")] = None,
           reference: Annotated[bool, typer.Option(help="Publish an instrument for each symbol first.")] = True,
           check: Annotated[bool, typer.Option("--check", help="Say all that is wrong, publish nothing.")] = False,
           skip_refused: Annotated[bool, typer.Option(help="Publish the rest where rows are refused.")] = False,
           symbol: Annotated[str | None, typer.Option(help="Instrument of files without a column of it.")] = None,
           time_unit: Annotated[str | None, typer.Option(help="Of numbers: s, ms, us or ns.")] = None,
           time_zone: Annotated[str | None, typer.Option(help="Of times without one: UTC, -05:00, …")] = None,
           bar_s: Annotated[float | None, typer.Option(min=0.001, help="Seconds that a bar lasts.")] = None,
           column: Annotated[list[str] | None, typer.Option(help="THEIRS=OURS: the name of a column.")] = None,
           ignore: Annotated[list[str] | None, typer.Option(help="A column that need not be read.")] = None,
           head: Annotated[str | None, typer.Option(help="Names of columns, of CSV files without them.")] = None,
           brokers: Brokers = None) -> None:
    """CSV, Parquet, JSON lines of ticks and trades into the topics, in time order over all files; all or nothing."""
    from app.files.market import Asked, given_columns, given_unit
    from app.files.refusals import FileRefused
    from app.files.times import zone_of
    from app.replay import Pace, read_files, report_of, run_replay

    settings = settings_of(brokers=brokers) if check else with_brokers(brokers=brokers)
    try:
        asked = Asked(symbol, given_unit(time_unit), None if time_zone is None else zone_of(time_zone), bar_s,
                      given_columns(column or []), frozenset(ignore or ()),
                      None if head is None else tuple(name.strip() for name in head.split(",")))
    except ValueError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    parts, problems = read_files(files, asked, as_is, err, time.time_ns() + settings.future_ns)
    for line in problems:
        err.print(line, markup=False, soft_wrap=True)
    report = report_of(parts, problems)
    rows = sum(len(p.refused) for p in parts)
    if check or (problems and not (skip_refused and rows == len(problems))):
        typer.echo(json.dumps(report | {"published": False}))
        raise typer.Exit(EXIT_FAILED if problems else 0)
    try:
        report |= run(run_replay(settings, parts, Pace(speed, as_is, limit, reference), err))
    except FileRefused as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    typer.echo(json.dumps(report | {"published": True}))
    raise typer.Exit(EXIT_FAILED if problems else 0)


def history(source: Annotated[str | None, typer.Argument(help="A file or table; else DESKRISK_HISTORY.")] = None,
            as_json: AsJson = False) -> None:
    """What a history of prices holds: gaps, repeats, splits, zeros, outliers, and how each factor moves."""
    from app.history import HistoryError, load_levels
    from app.history_report import examine

    source = source or settings_of().history
    if source is None:
        raise fail("history", "expected a file, or DESKRISK_HISTORY, was empty")
    try:
        found = examine(load_levels(source))
    except HistoryError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    if as_json:
        typer.echo(json.dumps(found))
        return
    err.print(f"{found['name']}: {found['days']} days from {found['first']} to {found['last']}, a median of "
              f"{found['median_distance_days']:g} days apart; {len(found['gaps'])} gaps, {found['repeated']} values "
              f"said twice, {found['weekdays_missing']} weekdays without a record", markup=False, soft_wrap=True)
    columns = ("factor", "moves", "values", "first", "last", "missing", "longest_gap", "zeros", "below_zero")
    table = Table(*(c.replace("_", " ") for c in columns), "splits", "outliers")
    for f in found["factors"]:
        jumps = [", ".join(f"{j['day']} ({j['like']})" if "like" in j else j["day"] for j in f.get(kind, [])[:5])
                 for kind in ("splits", "outliers")]
        table.add_row(*(str(f.get(c, "")) for c in columns), *jumps)
    show_table(table)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for command in (replay, history):
        cli.command()(command)

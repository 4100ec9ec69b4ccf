"""The commands `calc` and `parity`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli_common import EXIT_DIFFERENT, EXIT_FAILED, AsJson, err, fail, settings_of, show_table


def calc(name: Annotated[str, typer.Argument(help="A calculator, or `list`.")] = "list",
         file: Annotated[Path | None, typer.Argument(help="JSON lines; standard input if absent.")] = None,
         describe: Annotated[bool, typer.Option("--describe", help="Say what the calculator reads.")] = False) -> None:
    """Reproduce any number: JSON lines in and out, with the kernels of production and every convention named."""
    from app.calc import describe as all_calculators
    from app.calc import run_lines
    from app.calc.line import CALCULATORS

    if name == "list":
        table = Table("name", "also", "what it does", show_lines=True)
        for known, synonyms, text in all_calculators():
            table.add_row(known, ", ".join(synonyms), text)
        show_table(table)
        return
    if name not in CALCULATORS:
        raise fail("calc", f"expected one of {', '.join(k for k, _, _ in all_calculators())}, was {name!r}")
    if describe:
        typer.echo(CALCULATORS[name].__doc__)
        return
    if file is not None and not file.exists():
        raise fail("calc", f"no file {file}")
    failed = done = 0
    with (file.open("rb") if file else sys.stdin.buffer) as lines:
        for result in run_lines(name, lines):
            done += 1
            failed += "error" in result
            typer.echo(json.dumps(result))
    if not done:
        raise fail("calc", f"no line in {file or 'the input'}: expected a JSON object a line", EXIT_FAILED)
    if failed:
        raise fail("calc", f"{failed} lines could not be calculated; each says which field and why", EXIT_FAILED)


def parity(paths: Annotated[list[Path], typer.Argument(help="Files of published results, or folders of them.")],
           market: Annotated[Path | None, typer.Option(help="Folder of the series that some files refer to.")] = None,
           write: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
           as_json: AsJson = False) -> None:
    """Run published reference results through the calculators; count the misses (exit 3 if there are any)."""
    from app.calc.parity import COMPARISONS, Parity, compare_file

    files = sorted(f for p in paths for f in (p.glob("*.json") if p.is_dir() else [p]))
    found: list[Parity] = []
    unknown: list[str] = []
    for file in files:
        if json.loads(file.read_text()).get("id") not in COMPARISONS:
            unknown.append(file.name)
            continue
        found.append(compare_file(file, market or file.resolve().parent.parent / "market"))
    cases, missed = sum(p.cases for p in found), sum(len(p.misses) for p in found)
    total = {"files": len(found), "cases": cases, "comparisons": sum(p.comparisons for p in found), "misses": missed,
             "unknown_files": unknown}
    if write:
        write.write_text(markdown(found, total))
    if as_json:
        typer.echo(json.dumps(total | {"by_file": {p.id: p.__dict__ for p in found}}))
    else:
        table = Table("file", "cases", "numbers", "misses", "largest gap")
        for p in found:
            table.add_row(p.id, str(p.cases), str(p.comparisons), str(len(p.misses)), f"{p.largest:.3g}")
        show_table(table)
        for p in found:
            for miss in p.misses:
                err.print(f"[red]{p.id}[/] {miss}", markup=True)
        typer.echo(f"{cases} cases, {missed} misses")
    raise typer.Exit(EXIT_DIFFERENT if missed or not found else 0)


def backtest(node: Annotated[str, typer.Argument(help="A node of deskrisk.risk in ClickHouse.")] = "firm",
             file: Annotated[Path | None, typer.Argument(help="Instead: a CSV with the columns pnl and var.")] = None,
             level: float = 0.99) -> None:
    """Backtest a node's VaR by day: exceptions, Kupiec, Christoffersen, Basel zone and multiplier."""
    from app.backtests import run_backtest

    try:
        typer.echo(json.dumps(run_backtest(settings_of(), node, file, level)))
    except (OSError, ValueError) as error:
        raise fail("backtest", error, EXIT_FAILED) from error


def markdown(found: list[Any], total: dict[str, Any]) -> str:
    """Return the parity table as a document."""
    lines = ["# Parity with published results", "",
             "Written by `deskrisk parity`: published numbers run through `deskrisk calc`, compared at the tolerance "
             "each source's rounding allows. The largest gap is absolute, or relative where the tolerance is.", "",
             f"**{total['cases']} cases ({total['comparisons']} numbers), {total['misses']} misses.**", "",
             "| file | cases | numbers | misses | largest gap |", "|---|---|---|---|---|"]
    lines += [f"| {p.id} | {p.cases} | {p.comparisons} | {len(p.misses)} | {p.largest:.3g} |" for p in found]
    lines += ["", "Every miss:", ""] + ([f"- {p.id}: {m}" for p in found for m in p.misses] or ["none."])
    return "\n".join(lines) + "\n"


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(calc)
    cli.command()(parity)
    cli.command()(backtest)

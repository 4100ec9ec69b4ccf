"""The commands `calc` and `parity`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli_common import EXIT_DIFFERENT, EXIT_FAILED, AsJson, err, fail, settings_of, show_table

if TYPE_CHECKING:
    from app.calc.parity import Parity


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


def parity(paths: Annotated[list[Path] | None, typer.Argument(help="Files of cases, or folders of them.")] = None,
           market: Annotated[Path | None, typer.Option(help="Folder of the series that some files refer to.")] = None,
           write: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
           kinds: Annotated[bool, typer.Option("--kinds", help="Say which kinds of cases are known.")] = False,
           as_json: AsJson = False) -> None:
    """Run files of published results and of public bug reports through the calculators; count the misses.

    Exit 3 if there are any. A file says what its cases are in `kind` (or `id`): see `--kinds`.
    """
    from app.calc import describe as all_calculators
    from app.calc.parity import compare_files
    from app.calc.published import COMPARISONS

    if kinds:
        typer.echo("cases as their source printed them: " + ", ".join(sorted(COMPARISONS)))
        typer.echo("cases with input and expected: " + ", ".join(name for name, _, _ in all_calculators()))
        return
    for path in paths or []:
        if not path.exists():
            raise fail("parity", f"no file or folder {path}")
    files = [f for p in paths or [] for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
    found, unknown = compare_files(files, market)
    total = {"files": len(files) - len(unknown), "cases": sum(p.cases for p in found),
             "comparisons": sum(p.comparisons for p in found), "misses": sum(len(p.misses) for p in found),
             "left_out": sum(len(p.left_out) for p in found), "unknown_files": unknown}
    if write and total["cases"]:
        write.write_text(markdown(found, total))
    if as_json:
        typer.echo(json.dumps(total | {"by_kind": {p.id: p.__dict__ for p in found}}))
    else:
        _show(found, total)
    if not total["cases"]:
        raise fail("parity", f"none of {len(files)} files has a case that a calculator answers", EXIT_FAILED)
    named = [f for f in unknown if Path(f) in (paths or [])]
    if named:
        raise fail("parity", f"{', '.join(named)}: no file of cases", EXIT_FAILED)
    raise typer.Exit(EXIT_DIFFERENT if total["misses"] else 0)


def _show(found: list[Parity], total: dict[str, Any]) -> None:
    """Print the table, every miss, and what was not run and why."""
    table = Table("cases", "run", "numbers", "misses", "left out", "largest gap")
    for p in found:
        table.add_row(p.id, *map(str, (p.cases, p.comparisons, len(p.misses), len(p.left_out))), f"{p.largest:.3g}")
    show_table(table)
    for p in found:
        for miss in p.misses:
            err.print(f"[red]{p.id}[/]", end=" ")
            err.print(miss, markup=False)
    for file, why in total["unknown_files"].items():
        err.print(f"{file}: {why}", markup=False)
    typer.echo(f"{total['cases']} cases, {total['misses']} misses, {total['left_out']} left out, "
               f"{len(total['unknown_files'])} files not known")


def backtest(node: Annotated[str, typer.Argument(help="A node of deskrisk.risk in ClickHouse.")] = "firm",
             file: Annotated[Path | None, typer.Argument(help="Instead: a CSV with the columns pnl and var.")] = None,
             level: float = 0.99) -> None:
    """Backtest a node's VaR by day: exceptions, Kupiec, Christoffersen, Basel zone and multiplier."""
    from app.backtests import run_backtest

    try:
        typer.echo(json.dumps(run_backtest(settings_of(), node, file, level)))
    except (OSError, ValueError) as error:
        raise fail("backtest", error, EXIT_FAILED) from error


def markdown(found: list[Parity], total: dict[str, Any]) -> str:
    """Return the parity table as a document."""
    lines = ["# Parity with published results", "",
             "Written by `deskrisk parity`: published numbers, and cases of public bug reports with the value that was "
             "derived for each, run through `deskrisk calc` and compared at the tolerance each source's rounding "
             "allows. The largest gap is absolute, or relative where the tolerance is. Left out are cases that no "
             "calculator answers (rehearsals and files: `docs/field-log.md`) or whose right value is words.", "",
             f"**{total['cases']} cases ({total['comparisons']} numbers), {total['misses']} misses; "
             f"{total['left_out']} left out.**", "",
             "| cases | run | numbers | misses | left out | largest gap |", "|---|---|---|---|---|---|"]
    lines += [f"| {p.id} | {p.cases} | {p.comparisons} | {len(p.misses)} | {len(p.left_out)} | {p.largest:.3g} |"
              for p in found]
    lines += ["", "Every miss:", ""] + ([f"- {p.id}: {m}" for p in found for m in p.misses] or ["none."])
    words = [f"- {p.id}: {m}" for p in found for m in p.left_out if p.cases or "words" in m]
    return "\n".join(lines + (["", "Right values in words:", "", *words] if words else [])) + "\n"


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(calc)
    cli.command()(parity)
    cli.command()(backtest)

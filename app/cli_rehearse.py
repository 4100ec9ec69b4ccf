"""The command `rehearse`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli_common import EXIT_DIFFERENT, EXIT_FAILED, AsJson, Brokers, err, fail, run, settings_of


def rehearse(paths: Annotated[list[Path], typer.Argument(help="Scenario files (YAML), or folders of them.")],
             brokers: Brokers = None,
             embedded: Annotated[bool, typer.Option("--embedded", help="On an embedded broker of its own.")] = False,
             as_json: AsJson = False) -> None:
    """Run scenarios against an installation of their own; exit code 3 where what is seen is not what is expected."""
    from app.rehearse.reporting import Result
    from app.rehearse.runner import rehearse as run_all
    from app.rehearse.runner import summary
    from app.rehearse.scenario import ScenarioError, read_path

    settings = settings_of(brokers=None if embedded else brokers)
    scenarios = []
    try:
        for path in paths:
            scenarios += read_path(path)
    except ScenarioError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error

    if not scenarios:
        raise fail("paths", f"expected files of scenarios, found none in {', '.join(map(str, paths))}", EXIT_FAILED)

    def told(result: Result) -> None:
        typer.echo(json.dumps(result.fields()) if as_json else "\n".join(result.lines()))

    on_embedded = embedded or not settings.brokers
    results = run(run_all(scenarios, settings, on_embedded, lambda text: err.print(text, markup=False), told))
    found = summary(results)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(f"{found['scenarios']} scenarios: {found['ok']} as expected, {found['different']} different, "
                   f"{found['skipped']} skipped")
    raise typer.Exit(EXIT_DIFFERENT if found["different"] else 0)


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(rehearse)

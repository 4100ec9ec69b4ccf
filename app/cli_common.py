"""What the commands share: options, exit codes, settings from the command line, one way to run and to fail."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app.settings import SECRETS, Settings, unknown_variables
from schemas.units import SHOWN
from tables.exit_codes import ExitCode

err = Console(stderr=True, highlight=False)
Brokers = Annotated[str | None, typer.Option(help="Kafka bootstrap servers (DESKRISK_BROKERS).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Gateway = Annotated[str, typer.Option(envvar="DESKRISK_GATEWAY_URL", help="The gateway to ask.")]
GATEWAY_URL = "http://127.0.0.1:8321"
By = Annotated[str, typer.Option(help="Who asks for it; goes into the record.")]
PIPE_WIDTH = 220
#: wrong usage or settings; something is wrong with data or services; a comparison found a difference
EXIT_USAGE, EXIT_FAILED, EXIT_DIFFERENT = int(ExitCode.USAGE), int(ExitCode.FAILED), int(ExitCode.DIFFERENT)


def show_table(table: Table) -> None:
    """Print a table: as wide as the terminal, and where there is none as wide as it needs to be read."""
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def fail(field: str, why: object, code: int = EXIT_USAGE) -> typer.Exit:
    """Print what is wrong with a field; return the exit to raise."""
    err.print(f"[red]{field}[/]:", end=" ")
    err.print(str(why), markup=False)
    return typer.Exit(code)


def settings_of(**given: Any) -> Settings:
    """Return the settings with what the command line gave; exits with a line per wrong field or unknown variable."""
    if unread := unknown_variables(os.environ):
        for line in unread:
            exit_ = fail("variable", line)
        raise exit_
    try:
        return Settings(**{k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(map(str, problem["loc"])) or "settings"
            given_, hidden = problem.get("input"), str(problem["loc"][-1]) in SECRETS if problem["loc"] else True
            exit_ = fail(f"setting {where}", problem["msg"] + ("" if hidden else f", was {str(given_)[:SHOWN]!r}"))
        raise exit_ from error


def with_brokers(**given: Any) -> Settings:
    """Return the settings; exits where no broker is named."""
    settings = settings_of(**given)
    if not settings.brokers:
        raise fail("brokers", "expected host:port, was empty; give --brokers or set DESKRISK_BROKERS")
    return settings


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a command's work; what a person can do something about is one line, not a traceback."""
    try:
        return asyncio.run(work)
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        raise fail(type(error).__name__, error, getattr(error, "exit_code", EXIT_FAILED)) from error


def start_process(settings: Settings, process: str, supervised: bool) -> None:
    """Set up logging; end with the supervisor, where there is one."""
    from app.logs import configure
    from app.supervisor import stop_with_parent
    from tables import tasks

    configure(settings.log_level, settings.log_json, process)
    tasks.process.role, tasks.process.supervised = process, supervised
    if supervised:
        stop_with_parent()

"""The `deskrisk` command."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

from app import guard

guard.check()

import typer  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.table import Table  # noqa: E402

from app import cli_calc, cli_control, cli_files, cli_quarantine, cli_recovery, cli_rehearse  # noqa: E402
from app.cli_common import (  # noqa: E402
    EXIT_DIFFERENT,
    EXIT_FAILED,
    GATEWAY_URL,
    AsJson,
    Brokers,
    Gateway,
    Supervised,
    err,
    fail,
    run,
    settings_of,
    show_table,
    start_process,
    with_brokers,
)
from app.rank import give_way, go_first  # noqa: E402
from app.settings import ROLES, Settings  # noqa: E402

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Live positions, P&L and risk, folded from Kafka. Settings: DESKRISK_* variables and options.")
topics_cli = typer.Typer(no_args_is_help=True, help="Topics on the broker.")
reference_cli = typer.Typer(no_args_is_help=True, help="Reference data: instruments, accounts, the hierarchy.")
cli_calc.register(cli)
cli_control.register(cli)
cli_recovery.register(cli)
cli_quarantine.register(cli)
cli_rehearse.register(cli)
cli_files.register(cli)
cli.add_typer(topics_cli, name="topics")
cli.add_typer(reference_cli, name="reference")

def _say(text: str) -> None:
    err.print(text)


# ---- processes ----------------------------------------------------------------------------------------------------
@cli.command()
def demo(seconds: Annotated[float | None, typer.Option("--for", help="End by itself after this many seconds.")] = None,
         as_json: AsJson = False,
         browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
         brokers: Brokers = None, seed: int = 20261120,
         tick_rate: Annotated[float, typer.Option(help="Quotes a second over all instruments.")] = 3000.0,
         trade_rate: Annotated[float, typer.Option(help="Trades a second.")] = 60.0,
         opening: Annotated[int, typer.Option(help="Trades that build the positions at the start.")] = 4800,
         feed: Annotated[bool, typer.Option("--feed/--no-feed", help="Run the simulated market.")] = True,
         gateway_port: int | None = None) -> None:
    """Everything on this machine with a simulated market: embedded broker and store, all roles, the page."""
    from app.local import run_demo

    settings = settings_of(brokers=brokers, gateway_port=gateway_port if gateway_port is not None else 0)
    start_process(settings, "demo", False)
    raise typer.Exit(run(run_demo(settings, seconds, as_json, browser, seed, tick_rate, trade_rate, opening, feed,
                                   _say)))


@cli.command()
def up(embedded: Annotated[bool, typer.Option("--embedded", help="Embedded broker and store, started empty.")] = False,
       ready_file: Annotated[Path | None, typer.Option(help="Gets the addresses (JSON) once all is ready.")] = None,
       brokers: Brokers = None, data_dir: Path | None = None, gateway_port: int | None = None) -> None:
    """All roles on this machine, without a simulated market."""
    from app.local import run_up

    settings = settings_of(brokers=None if embedded else brokers, data_dir=data_dir, gateway_port=gateway_port)
    if embedded:
        settings = settings.model_copy(update={"brokers": None})
    elif not settings.brokers:
        err.print("no brokers given: using the embedded one")
    start_process(settings, "up", False)
    raise typer.Exit(run(run_up(settings, embedded or not settings.brokers, ready_file, _say)))


@cli.command()
def worker(roles: Annotated[str, typer.Option(help="Comma-separated: positions, marks, risk, gate.")] = ",".join(ROLES),
           brokers: Brokers = None, data_dir: Path | None = None, instance: str | None = None,
           supervised: Supervised = False) -> None:
    """One process a role, restarted when it fails; more of them on more machines share the partitions."""
    wanted = [r.strip() for r in roles.split(",") if r.strip()]
    unknown = [r for r in wanted if r not in ROLES]
    if unknown or not wanted:
        raise fail("roles", f"expected some of {', '.join(ROLES)}, was {roles!r}")
    settings = with_brokers(brokers=brokers, data_dir=data_dir, instance=instance)
    start_process(settings, wanted[0] if supervised else "worker", supervised)
    if supervised and len(wanted) == 1:
        from app.engine import run_worker

        if not (settings.goes_first(wanted[0]) and go_first()):  # type: ignore[arg-type]
            give_way(wanted[0])
        run_worker(settings, wanted[0])  # type: ignore[arg-type]
        return
    run(_keep([(f"worker-{r}", ["worker", "--roles", r]) for r in wanted], settings))


async def _keep(commands: list[tuple[str, list[str]]], settings: Settings) -> None:
    from app.supervisor import Supervisor, on_signals
    from app.worker_alerts import WorkerAlerts

    stop = asyncio.Event()
    on_signals(stop)
    supervisor, alerts = Supervisor(_say), WorkerAlerts(settings)
    alerts.start()
    supervisor.tell(alerts)
    environment = {"DESKRISK_BROKERS": str(settings.brokers), "DESKRISK_DATA_DIR": str(settings.data_dir)}
    for name, arguments in commands:
        given = {"DESKRISK_INSTANCE": f"{settings.instance}-{arguments[-1]}"} if settings.instance else {}
        supervisor.add(name, *arguments, **environment | given)
    ready = asyncio.create_task(supervisor.wait_ready(1e9))
    ready.add_done_callback(lambda task: None if task.cancelled() else print("READY worker", flush=True))
    await stop.wait()
    ready.cancel()
    await supervisor.stop()
    await alerts.stop()


@cli.command()
def gateway(brokers: Brokers = None, port: Annotated[int | None, typer.Option(help="0: any free port.")] = None,
            supervised: Supervised = False) -> None:
    """The page, the snapshot and the stream."""
    from app.gateway.server import run_gateway

    settings = with_brokers(brokers=brokers, gateway_port=port)
    start_process(settings, "gateway", supervised)
    run_gateway(settings)


@cli.command()
def sink(brokers: Brokers = None, data_dir: Path | None = None, supervised: Supervised = False) -> None:
    """Topics into ClickHouse (DESKRISK_CLICKHOUSE_URL; embedded chDB where it is not set)."""
    from app.sink.runner import run_sink
    from app.supervisor import on_signals

    settings = with_brokers(brokers=brokers, data_dir=data_dir)
    start_process(settings, "sink", supervised)
    give_way("sink")

    async def until_signal() -> None:
        stop = asyncio.Event()
        on_signals(stop)
        task = asyncio.create_task(run_sink(settings))
        await asyncio.wait({task, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    run(until_signal())


@cli.command(hidden=True)
def feed(seed: int = 20261120, tick_rate: float = 3000.0, trade_rate: float = 60.0, opening: int = 4800,
         brokers: Brokers = None, supervised: Supervised = False) -> None:
    """The demo's simulated upstream, by itself."""
    from app.feed import run_feed

    settings = with_brokers(brokers=brokers)
    start_process(settings, "feed", supervised)
    run(run_feed(settings, seed, tick_rate, trade_rate, opening))


@cli.command(hidden=True)
def warm() -> None:
    """Compile what is compiled once: kernels and the embedded broker (part of the install)."""
    from app.brokers import build_embedded
    from app.warm import compile_kernels

    build_embedded(_say)
    _say("compiling the kernels (once) ...")
    compile_kernels()


# ---- topics and data ----------------------------------------------------------------------------------------------
@topics_cli.command("create")
def topics_create(brokers: Brokers = None) -> None:
    """Create the topics that do not exist; statements under keys that others share get keys of their own."""
    from app.statement_keys import rekey_statements
    from tables.kafka import create_topics

    settings = with_brokers(brokers=brokers)
    made = run(create_topics(settings.client(), settings.prefix, settings.partitions, settings.horizon_ms,
                              settings.replication))
    _say(f"created {len(made)}: {', '.join(made) or 'nothing was missing'}")
    for line in run(_wrong_settings(settings)):
        _say(f"[yellow]{escape(line)}[/]")
    if moved := run(rekey_statements(settings)):
        _say(f"positions.external: {moved} statements have keys of their own now")


async def _wrong_settings(settings: Settings) -> list[str]:
    """Return a line for each setting of a topic that falls short of a promise; none is ever changed."""
    from app.cluster_checks import examine_topics

    return [f"{f.where}: {f.check}: expected {f.expected}, was {f.found}; {f.mend}"
            for f in await examine_topics(settings)]


@topics_cli.command("check")
def topics_check(brokers: Brokers = None) -> None:
    """Say what is wrong with the topics; exit code 1 if anything is."""
    from app.statement_keys import find_shared_keys
    from tables.kafka import check_topics

    settings = with_brokers(brokers=brokers)
    wrong = run(check_topics(settings.client(), settings.prefix, settings.partitions)) or run(_wrong_settings(settings))
    if not wrong and (shared := sum(map(len, run(find_shared_keys(settings)).shared.values()))):
        wrong.append(f"{settings.topics()['positions.external']}: {shared} keys are shared by several statements "
                     "(`topics create` gives them keys of their own)")
    for line in wrong:
        _say(f"[red]{line}[/]")
    raise typer.Exit(EXIT_FAILED if wrong else 0)


@topics_cli.command("schema")
def topics_schema() -> None:
    """Print the JSON Schema of every record."""
    from schemas.codec import json_schemas

    print(json.dumps(json_schemas(), indent=1))


@reference_cli.command("load")
def reference_load(folder: Path, check: Annotated[bool, typer.Option("--check", help="Publish nothing.")] = False,
                   brokers: Brokers = None) -> None:
    """Check a folder of CSV, YAML, JSON or Parquet files and publish it; changes apply live."""
    from app.files.refusals import FileRefused
    from app.quarantine import Notices
    from app.reference_files import publish_reference, read_folder

    settings = settings_of(brokers=brokers) if check else with_brokers(brokers=brokers)
    try:
        instruments, accounts, counterparties = read_folder(folder, settings.levels)
    except FileRefused as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    found = f"{len(instruments)} instruments, {len(accounts)} accounts, {len(counterparties)} counterparties"
    if check:
        _say(f"right: {found}; nothing published")
        return
    sent = run(publish_reference(settings.client(), settings.topics(), instruments, accounts, counterparties))
    _say(f"published {sent} records: {found}")
    for line in run(Notices(settings).look()):
        err.print(line, markup=False)


@cli.command()
def load(trades_per_s: float = 1000.0, ticks_per_s: float = 5000.0, seconds: float = 10.0, accounts: int = 100,
         instruments: int = 50, gateway_url: Annotated[str | None, typer.Option(help="Measure on this stream.")] = None,
         as_json: AsJson = False, seed: int = 1, brokers: Brokers = None) -> None:
    """An open-loop load with a latency report: each record is stamped with the time it was due."""
    from app.load import run_load

    settings = with_brokers(brokers=brokers)
    report = run(run_load(settings, trades_per_s, ticks_per_s, seconds, accounts, instruments, gateway_url, seed))
    _show(report, as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report), flush=True)
        return
    table = Table(show_header=False)
    for key, value in report.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else str(value))
    show_table(table)


# ---- looking ------------------------------------------------------------------------------------------------------
@cli.command()
def positions(account: str | None = None, instrument: str | None = None, scope: str = "firm",
              gateway_url: Gateway = GATEWAY_URL,
              as_json: AsJson = False) -> None:
    """Positions as the gateway has them."""
    from app.show import get_json

    query = {k: v for k, v in {"account": account, "instrument": instrument, "scope": scope}.items() if v}
    rows = run(get_json(f"{gateway_url}/api/positions", query))
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(*("account", "instrument", "quantity", "average", "mid", "unrealised", "realised", "ccy", "value",
                    "delta", "vega", "quality", "book"))
    for row in sorted(rows, key=lambda r: (r["account"], r["instrument"])):
        figures = (row["market_value"], row["greeks"]["delta"], row["greeks"]["vega"])
        value, delta, vega = ("-" if x is None else f"{x:,.0f}" for x in figures)
        unrealised, realised = ("-" if x is None else f"{x:,.2f}" for x in (row["unrealised_pnl"], row["realised_pnl"]))
        table.add_row(row["account"], row["instrument"], row["quantity"], str(row["average_price"]), str(row["mid"]),
                      unrealised, realised, row["currency"], value, delta, vega, row["quality"],
                      row["book"])
    show_table(table)


@cli.command()
def risk(node: Annotated[str, typer.Argument(help="firm, fund:ALPHA, desk:FX1, ...")] = "firm",
         gateway_url: Gateway = GATEWAY_URL,
         as_json: AsJson = False) -> None:
    """A node's aggregates as the gateway has them."""
    from app.show import flat, get_json

    found = run(get_json(f"{gateway_url}/api/risk/{node}", {}))
    print(json.dumps(found)) if as_json else _show(flat(found), False)


@cli.command()
def verify(brokers: Brokers = None, as_json: AsJson = False) -> None:
    """Prove the tables from the topics: I1 (= the trades, folded anew), I2 (sums), I4 (changelog = published)."""
    from app.verify import run_verify

    settings = with_brokers(brokers=brokers)
    report = run(run_verify(settings))
    for line in (*report.pop("differences"), *report.pop("left_out")):
        _say(f"[red]{line}[/]")
    _show(report, as_json)
    raise typer.Exit(0 if report["ok"] else EXIT_DIFFERENT)


@cli.command()
def doctor(brokers: Brokers = None, as_json: AsJson = False,
           broker: Annotated[bool, typer.Option("--broker", help="Look at the cluster, not at this machine.")] = False,
           strict: Annotated[bool, typer.Option("--strict", help="With --broker: what is short or unknown is an error, "
                                                "too.")] = False) -> None:
    """Say what this machine has and what is missing; --broker: what the promises need of the cluster.

    Exit code 1 where something is wrong. With --broker that is a promise that a command or a setting would mend; what
    this cluster cannot give (one broker), and what it does not say, is said and is no error, unless --strict.
    """
    from app.doctor import examine

    if broker:
        _doctor_of_cluster(with_brokers(brokers=brokers), as_json, strict)
    settings = settings_of(brokers=brokers)
    found = run(examine(settings))
    if as_json:
        print(json.dumps(found))
    else:
        table = Table("what", "state", "found")
        colours = {"ok": "green", "missing": "yellow", "soon": "yellow", "wrong": "red"}
        for item in found:
            table.add_row(item["what"], f"[{colours[item['state']]}]{item['state']}[/]", item["found"])
        show_table(table)
    raise typer.Exit(EXIT_FAILED if any(i["state"] == "wrong" for i in found) else 0)


def _doctor_of_cluster(settings: Settings, as_json: bool, strict: bool) -> NoReturn:
    from app.cluster_checks import State, counted, examine_cluster, failed

    found = run(examine_cluster(settings))
    if as_json:
        print(json.dumps([finding.record() for finding in found]))
    else:
        table = Table("check", "where", "state", "found", "expected", "falls short of", "what mends it")
        colours = {State.OK: "green", State.SHORT: "yellow", State.WRONG: "red", State.UNKNOWN: "yellow"}
        for finding in found:
            if finding.state is not State.OK:
                state = f"[{colours[finding.state]}]{finding.state}[/]"
                table.add_row(finding.check, finding.where, state, *map(escape, (
                    finding.found, finding.expected, finding.falls_short_of, finding.mend)))
        if table.row_count:
            show_table(table)
        _say(", ".join(f"{count} {state}" for state, count in counted(found).items()))
    raise typer.Exit(EXIT_FAILED if failed(found, strict) else 0)


@cli.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context,
          name: Annotated[str, typer.Argument(help="engine, ticks, latency, risk, gate, ...")]) -> None:
    """Run a benchmark: --size smoke|real, --json."""
    import runpy
    import sys

    root = Path(__file__).resolve().parent.parent
    module = root / "benchmarks" / f"{name}.py"
    if not module.exists():
        known = sorted(p.stem for p in module.parent.glob("*.py") if not p.stem.startswith("_"))
        raise fail("bench", f"expected one of {', '.join(known) or 'those of a checkout'}, was {name!r}")
    sys.argv = [str(module), *context.args]
    sys.path.insert(0, str(root))
    os.environ.setdefault("PYTHONPATH", str(root))
    runpy.run_path(str(module), run_name="__main__")


def main() -> None:
    """Entry point."""
    cli()


if __name__ == "__main__":
    main()

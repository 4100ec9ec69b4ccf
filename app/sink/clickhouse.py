"""One interface over ClickHouse: a server by native TCP, or chDB in this process. The same SQL for both."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from clickhouse_driver import Client
from clickhouse_driver.columns.exceptions import ColumnException
from clickhouse_driver.errors import (
    CannotParseUuidError,
    ErrorCodes,
    ServerException,
    TypeMismatchError,
)
from clickhouse_driver.errors import Error as ServerError

from schemas.codec import encode


class StoreUnavailable(RuntimeError):
    """The store cannot be reached now; the same call may succeed later."""


class RowsRefused(ValueError):
    """The store is there and cannot write these rows: the same call would fail again."""


#: what a server, or the embedded store, answers to a value that its column cannot hold
_DATA_CODES = frozenset((
    ErrorCodes.CANNOT_PARSE_TEXT, ErrorCodes.CANNOT_PARSE_INPUT_ASSERTION_FAILED, ErrorCodes.CANNOT_PARSE_QUOTED_STRING,
    ErrorCodes.CANNOT_PARSE_DATE, ErrorCodes.CANNOT_PARSE_DATETIME, ErrorCodes.CANNOT_PARSE_NUMBER,
    ErrorCodes.CANNOT_PARSE_ESCAPE_SEQUENCE, ErrorCodes.TYPE_MISMATCH, ErrorCodes.CANNOT_CONVERT_TYPE,
    ErrorCodes.ARGUMENT_OUT_OF_BOUND, ErrorCodes.INCORRECT_DATA, ErrorCodes.VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE,
    407, 467))  # DECIMAL_OVERFLOW, CANNOT_PARSE_BOOL: the driver has no names for them
_CODE = re.compile(r"Code: (\d+)\b")
#: raised by the driver while it writes a value in the form of its column
_VALUE_ERRORS = (TypeMismatchError, ColumnException, CannotParseUuidError, TypeError, ValueError, ArithmeticError,
                 AttributeError, LookupError, struct.error)


class ClickHouse(Protocol):
    """What the sink and the commands need of ClickHouse."""

    name: str

    def execute(self, sql: str) -> None:
        """Run a statement."""

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows as one block: all or nothing.

        Raises
        ------
        RowsRefused
            Among the rows is one that cannot be written.
        StoreUnavailable
            The store cannot be reached now.
        """

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
        except _VALUE_ERRORS as error:
            self._client.disconnect()  # a part of the block may be on its way
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        except (ServerError, OSError, EOFError) as error:
            self._client.disconnect()
            if isinstance(error, ServerException) and error.code in _DATA_CODES:
                raise RowsRefused(str(error).partition("Stack trace")[0].strip()) from error
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
        try:
            lines = b"\n".join(encode(dict(zip(columns, row, strict=True))) for row in rows)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        try:
            self._write(table, columns, lines, len(rows))
        except RuntimeError as error:
            code = _CODE.search(str(error))
            if code is not None and int(code.group(1)) in _DATA_CODES:
                raise RowsRefused(str(error).partition("Stack trace")[0].strip()) from error
            raise

    def _write(self, table: str, columns: Sequence[str], lines: bytes, n: int) -> None:
        self._session.query(f"INSERT INTO {table} ({', '.join(columns)}) SETTINGS "
                            "date_time_input_format = 'best_effort', input_format_parallel_parsing = 0, "
                            f"max_insert_block_size = {max(n, 1)} FORMAT JSONEachRow\n{lines.decode()}")

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

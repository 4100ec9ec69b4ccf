"""A real ClickHouse over native TCP without a server package: libchdb listens with ClickHouse's own handler.

For rehearsals and tests. ``python -m app.clickhouse_server LIB PATH PORT`` listens; it has no users: loopback and an
empty password only.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from app.brokers import cache_dir, one_at_a_time

PACKAGE = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"


def fetch() -> Path | None:
    """Return libchdb.so, fetched once by npm; None where npm is absent or has no such package."""
    home = cache_dir() / "libchdb"
    with one_at_a_time(home):
        found = next(iter(home.glob("**/libchdb.so")), None)
        return found if found is not None or shutil.which("npm") is None else _pack(home)


def _pack(home: Path) -> Path | None:
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            return None
        with tarfile.open(Path(scratch) / done.stdout.strip()) as archive:
            archive.extractall(home, filter="data")
    return next(iter(home.glob("**/libchdb.so")), None)


def serve(library: str, path: str, port: str) -> None:
    """Listen until killed."""
    queries = Path(path) / "start.sql"
    # the second statement never ends within a test: the listener lives as long as it runs
    queries.write_text("SYSTEM START LISTEN TCP;\nSELECT sleepEachRow(1) FROM numbers(864000) "
                       "SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null;\n")
    arguments = ["clickhouse", f"--path={path}/data", "--listen_host=127.0.0.1", f"--tcp_port={port}",
                 f"--queries-file={queries}"]
    array = (ctypes.c_char_p * len(arguments))(*[a.encode() for a in arguments])
    ctypes.CDLL(library).query_stable_v2(len(arguments), array)


if __name__ == "__main__":
    serve(*sys.argv[1:4])

"""Processes of the product, forked from one that has everything imported and every kernel loaded.

A role started as ``python -m app`` imports for two seconds and loads its kernels for three more. Rehearsals and tests
start hundreds of them. The server is one process without threads or an event loop; each child is forked from it, gets
the environment, folder and files of whoever asked, and then runs ``app.cli.main`` as ``python -m app`` does. A firm's
own installation never starts so: `app.supervisor` starts each process from nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.supervisor import HOME

MESSAGE_BYTES_MAX = 1 << 20
START_S = 600.0
#: what roles and commands import when they run
PRELOADED = ("app.cli", "app.engine", "app.gateway.server", "app.sink.runner", "app.verify", "app.recovery",
             "app.decisions", "app.reconcile", "app.roll", "app.local", "uvicorn.protocols.http.httptools_impl",
             "uvicorn.lifespan.on", "uvicorn.loops.auto")


# ---- the server ---------------------------------------------------------------------------------------------------
def _preload() -> None:
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    from app.warm import warm_kernels

    warm_kernels()
    gc.collect()
    gc.freeze()  # the pages of what is loaded stay shared


def _become(request: dict[str, Any], files: Sequence[int], others: Sequence[socket.socket]) -> None:
    """Turn a forked child into the process that was asked for."""
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    for each in others:
        each.close()
    for target, file in enumerate(files):
        os.dup2(file, target)
    for file in files:
        if file > 2:
            os.close(file)
    os.setpgid(0, 0)  # Ctrl-C is for whoever asked
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["deskrisk", *request["arguments"]]


class _Server:
    """Forks a child for each connection and reports on it how the child ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._asked: dict[int, socket.socket] = {}
        self._wake, self._wakes = socket.socketpair()
        for each in (self._wake, self._wakes):
            each.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who runs the tests
        signal.set_wakeup_fd(self._wakes.fileno())
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def serve(self) -> bool:
        """Serve until nobody can ask any more; True in a child, which goes on as the process that was asked for."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                    self._reap()
                else:
                    raw, files, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, 4)
                    if not raw:
                        return False
                    if self._fork(json.loads(raw), files):
                        return True

    def _fork(self, request: dict[str, Any], files: list[int]) -> bool:
        answers, *standard = files
        answer = socket.socket(fileno=answers)
        child = os.fork()
        if child == 0:
            _become(request, standard, [self._control, self._wake, self._wakes, answer, *self._asked.values()])
            return True
        for file in standard:
            os.close(file)
        self._asked[child] = answer
        answer.send(json.dumps({"pid": child}).encode())
        return False

    def _reap(self) -> None:
        while self._asked:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            answer = self._asked.pop(child)
            with contextlib.suppress(OSError):  # nobody waits for it any more
                answer.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
            answer.close()


def main() -> None:
    """Serve on the socket that standard input is; in each child run the command."""
    control = socket.socket(fileno=os.dup(0))
    _preload()
    control.send(b"ready")
    if not _Server(control).serve():
        return
    from app.cli import main as command

    command()


# ---- those who ask ------------------------------------------------------------------------------------------------
@dataclass
class _Ends:
    """What is held of a forked process: where its end is said, its standard input, and what it writes."""

    pid: int
    answer: socket.socket
    stdin: int
    stdout: int
    #: -1 where it writes errors elsewhere
    errors: int

    def end_of_input(self) -> None:
        """Write nothing to it any more."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def ended(self, raw: bytes) -> int:
        """Return the exit code that was said; the process is gone."""
        self.answer.close()
        self.end_of_input()
        return int(json.loads(raw)["code"])

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class ForkedProcess:
    """A process that the server forked; used like ``subprocess.Popen``."""

    def __init__(self, ends: _Ends) -> None:
        self._ends, self.pid = ends, ends.pid
        self.stdout: IO[str] = os.fdopen(ends.stdout, encoding="utf-8", errors="replace")
        self.stderr = os.fdopen(ends.errors, encoding="utf-8", errors="replace") if ends.errors >= 0 else None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self._ended(0.0)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._ends.answer.settimeout(timeout)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                self.returncode = self._ends.ended(self._ends.answer.recv(4096))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("forked process", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self.poll() is None:
            self._ends.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkedTask:
    """A process that the server forked; used like ``asyncio.subprocess.Process``."""

    def __init__(self, ends: _Ends, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader | None) -> None:
        self._ends, self.pid = ends, ends.pid
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None
        self._gone = asyncio.Event()
        ends.answer.setblocking(False)
        asyncio.get_running_loop().add_reader(ends.answer.fileno(), self._said)

    def _said(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ends.answer.fileno())
        self.returncode = self._ends.ended(self._ends.answer.recv(4096))
        self._gone.set()

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        await self._gone.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Wait for the end; return what it wrote. It gets no input."""
        assert self.stderr is not None
        self._ends.end_of_input()
        out, errors = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, errors

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self.returncode is None:
            self._ends.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The server of one process that asks, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = HOME,
             separate_errors: bool = False) -> ForkedProcess:
        """Return a new process that runs ``python -m app ARGUMENTS``; errors go where its output goes."""
        return ForkedProcess(self._ask(arguments, environment, cwd, separate_errors, None))

    async def task(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = HOME,
                   separate_errors: bool = False) -> ForkedTask:
        """Return a new process that runs ``python -m app ARGUMENTS``; errors go where those of this process go."""
        loop = asyncio.get_running_loop()
        ends = await loop.run_in_executor(None, self._ask, arguments, environment, cwd, separate_errors, 2)
        return ForkedTask(ends, await _reader(ends.stdout), await _reader(ends.errors) if separate_errors else None)

    def _ask(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, separate_errors: bool,
             errors_to: int | None) -> _Ends:
        with self._lock:
            control = self._started()
            answer, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stdin_read, stdin = os.pipe()
            stdout, stdout_write = os.pipe()
            errors, errors_write = os.pipe() if separate_errors else (-1, -1)
            writes = errors_write if separate_errors else stdout_write if errors_to is None else errors_to
            request = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
            socket.send_fds(control, [json.dumps(request).encode()],
                            [answers.fileno(), stdin_read, stdout_write, writes])
            answers.close()
            for file in {stdin_read, stdout_write, errors_write} - {-1}:
                os.close(file)
            return _Ends(int(json.loads(answer.recv(4096))["pid"]), answer, stdin, stdout, errors)

    def _started(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.forking"], cwd=HOME, stdin=theirs.fileno(), process_group=0,
                env=os.environ | {"PYTHONPATH": str(HOME), "MALLOC_ARENA_MAX": "2"})
            theirs.close()
            self._control.settimeout(START_S)  # kernels that changed are compiled first
            if self._control.recv(16) != b"ready":
                raise RuntimeError("the fork server did not start")
        return self._control

    def stop(self) -> None:
        """End the server; what it forked goes on."""
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.wait(10)


async def _reader(file: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader),
                                                       os.fdopen(file, "rb", buffering=0))
    return reader


SERVER = ForkServer()


if __name__ == "__main__":
    main()

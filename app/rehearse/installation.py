"""An installation to rehearse in: its own topics, all roles as processes of this machine, a token for every person."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.forking import SERVER
from app.rehearse.store import Store
from app.settings import ROLES, Settings
from app.supervisor import Supervisor
from app.worker_alerts import WorkerAlerts
from tables.kafka import create_topics

READY_S = 120.0
#: session of a role that is killed: whoever starts again does not wait long for its partitions
SESSION_S = 6.0
WRITE_DOWN_S = 1.0
#: what each kind of person may do; a dealer sees one book
PEOPLE = {"viewer": "viewer", "risk": "risk", "risk2": "risk", "admin": "admin+risk", "trader": "trader"}


class Installation:
    """All roles on topics of their own.

    Parameters
    ----------
    settings : with the brokers and the prefix of the topics
    more : settings of the scenarios, by name in lower case
    roles : what is started
    dealers : by name of a dealer, the node that a token of that dealer sees
    history : the text of a file of prices
    """

    def __init__(self, settings: Settings, more: Mapping[str, Any], roles: Sequence[str],
                 dealers: Mapping[str, str], history: str | None = None) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="deskrisk-rehearse-"))
        self._more, self._roles = dict(more), list(roles)
        self.socket = self._home / "gate.sock"
        #: what `expect: {sql: …}` asks, where the sink is one of the roles
        self.store = Store(self._home / "store") if "sink" in roles else None
        given: dict[str, Any] = {"data_dir": self._home, "session_timeout_s": SESSION_S} | {
            k: tuple(v) if isinstance(v, list) else v for k, v in more.items()}
        self.settings = Settings(**settings.model_dump(exclude_unset=True) | given | {"prefix": settings.prefix})
        if history is not None:
            (self._home / "history.csv").write_text(history)
            self.settings = self.settings.model_copy(update={"history": str(self._home / "history.csv")})
        self.tokens = {who: secrets.token_urlsafe(18) for who in PEOPLE}
        self.dealers = {name: secrets.token_urlsafe(18) for name in dealers}
        self._nodes = dict(dealers)
        self.log: list[str] = []
        self.supervisor = Supervisor(self.log.append, SERVER.task)
        #: says on `alerts` what the supervisor of a firm's own machine says
        self._alerts = WorkerAlerts(self.settings.model_copy(update={"instance": "rehearsal"}))
        self._children: dict[str, Any] = {}
        #: when each role was last started anew by a step
        self.changed_ns: dict[str, int] = {}

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes, and of commands that are run against it."""
        s = self.settings
        out = {f"DESKRISK_{k.upper()}": _text(v) for k, v in self._more.items()}
        users = [f"{token}:{who}:{PEOPLE[who]}" for who, token in self.tokens.items()]
        users += [f"{token}:dealer-{name}:trader:{self._nodes[name]}" for name, token in self.dealers.items()]
        return out | {
            "DESKRISK_BROKERS": str(s.brokers), "DESKRISK_PREFIX": s.prefix, "DESKRISK_DATA_DIR": str(s.data_dir),
            "DESKRISK_PARTITIONS": str(s.partitions), "DESKRISK_SESSION_TIMEOUT_S": str(s.session_timeout_s),
            "DESKRISK_GATEWAY_PORT": "0", "DESKRISK_GATE_SOCKET": str(self.socket), "DESKRISK_GATE_HTTP_PORT": "0",
            "DESKRISK_GATE_JOURNAL": str(self._home / "journal"), "DESKRISK_GATE_WRITE_DOWN_S": str(WRITE_DOWN_S),
            "DESKRISK_GATE_REALTIME": "0", "DESKRISK_API_TOKENS": ",".join(users), "DESKRISK_SAY_READS": "1",
            "DESKRISK_LOG_LEVEL": os.environ.get("DESKRISK_LOG_LEVEL", "error"),
            **({"DESKRISK_CLICKHOUSE_URL": self.store.url} if self.store is not None else {}),
            **({"DESKRISK_HISTORY": s.history} if s.history else {})}

    async def start(self) -> None:
        """Create the topics and start every role; returns once all are ready.

        Raises
        ------
        TimeoutError
            With the names of the roles that are not.
        """
        s = self.settings
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms, s.replication)
        if self.store is not None:
            await self.store.start()
        self._alerts.start()
        self.supervisor.tell(self._alerts)
        environment = self.environment()
        for role in self._roles:
            arguments = ["worker", "--roles", role] if role in ROLES else [role]
            instance = {"DESKRISK_INSTANCE": f"rehearse-{role}"} if role in ROLES else {}
            self._children[role] = self.supervisor.add(role, *arguments, **environment | instance)
        await self.supervisor.wait_ready(READY_S)

    @property
    def url(self) -> str:
        """Return where its gateway answers."""
        return str(self._children["gateway"].ready_text).removeprefix("gateway ")

    def running(self) -> set[str]:
        """Return the roles that are wanted to run."""
        return {role for role, child in self._children.items() if child.wanted.is_set()}

    def restarts(self) -> dict[str, int]:
        """Return how often each role ended by itself and was started again."""
        return {role: child.restarts for role, child in self._children.items() if child.restarts}

    async def kill(self, role: str) -> None:
        """SIGKILL a role; returns once the supervisor has it ready again."""
        child = self._children[role]
        child.ready.clear()
        self.changed_ns[role] = time.time_ns()
        if child.process is not None and child.process.returncode is None:
            child.process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(child.ready.wait(), READY_S)
        child.restarts -= 1  # it did not end by itself

    async def stop_role(self, role: str) -> None:
        """SIGTERM a role; it stays away until it is started."""
        await self._children[role].halt()

    async def start_role(self, role: str) -> None:
        """Start a role that was stopped; returns once it is ready."""
        child = self._children[role]
        self.changed_ns[role] = time.time_ns()
        child.wanted.set()
        await asyncio.wait_for(child.ready.wait(), READY_S)

    async def stop(self) -> None:
        """Stop every role and forget its folder."""
        await self.supervisor.stop()
        await self._alerts.stop()
        if self.store is not None:
            await self.store.stop()
        shutil.rmtree(self._home, ignore_errors=True)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list | tuple | dict):
        import json

        return json.dumps(value)
    return str(value)

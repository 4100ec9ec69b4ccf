"""What one user may read: the nodes a token grants, and what lies under them; the firm is everything.

A node lies in a grant where it is the granted one, or where all of its accounts lie under granted nodes. What has no
accounts of its own (a trader, a venue, an issuer, a record that was not applied) is the firm's to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from models.reference import FIRM
from schemas.records import Account, Alert, Approval, Control, Decision, Limit, Reason

#: nodes beside the tree whose accounts are known by their records
BESIDE = ("account", "dealer", "pm", "counterparty")
#: in place of what lies outside
WITHHELD = "(outside of what you may read)"


def lies_in(account: Account, nodes: Iterable[str]) -> bool:
    """Return whether an account lies under one of some nodes."""
    for node in nodes:
        level, _, name = node.partition(":")
        if node == FIRM or (name and account.under(level) == name):
            return True
    return False


class Sight:
    """What the holders of some nodes see, as accounts lie now.

    Parameters
    ----------
    accounts : every account that is known, by name
    levels : of the tree
    """

    def __init__(self, nodes: tuple[str, ...], accounts: Mapping[str, Account], levels: tuple[str, ...]) -> None:
        self.nodes, self.home, self.whole = nodes, nodes[0], FIRM in nodes
        self._accounts, self._levels = accounts, (*levels, *BESIDE)
        #: rises where it sees other nodes than before; the state's number when that was last noticed
        self.version = self.changed_at = 0
        self._at = -1
        self._granted: frozenset[str] = frozenset()
        self._seen: frozenset[str] = frozenset()
        self._binding: frozenset[str] = frozenset()

    def look(self, at: int, seq: int) -> None:
        """Look again where accounts may have changed.

        Parameters
        ----------
        at : how many changes of accounts there have been
        seq : the state's number now
        """
        if self.whole or at == self._at:
            return
        self._at = at
        granted = frozenset(name for name, a in self._accounts.items() if lies_in(a, self.nodes))
        under: dict[str, set[str]] = {}
        for name, account in self._accounts.items():
            for level in self._levels:
                if (of := account.under(level)) is not None:
                    under.setdefault(f"{level}:{of}", set()).add(name)
        seen = frozenset(self.nodes) | {node for node, names in under.items() if names <= granted}
        if (seen, granted) != (self._seen, self._granted):
            self.version, self.changed_at = self.version + 1, seq
        self._granted, self._seen = granted, seen
        self._binding = frozenset(node for node, names in under.items() if names & granted)

    # ---- nodes and accounts ---------------------------------------------------------------------------------------
    def sees(self, node: str) -> bool:
        """Return whether a node may be read."""
        return self.whole or node in self._seen

    def sees_account(self, account: str) -> bool:
        """Return whether what is of an account may be read."""
        return self.whole or account in self._granted

    def need(self, node: str) -> str:
        """Return a node that may be read; answer 403 otherwise, whether there is one of that name or not."""
        if not self.sees(node):
            raise HTTPException(403, f"node: {node!r} lies outside of what you may read ({', '.join(self.nodes)})")
        return node

    def need_account(self, account: str) -> str:
        """Return an account that may be read; answer 403 otherwise."""
        if not self.sees_account(account):
            self.need(f"account:{account}")
        return account

    def need_whole(self, what: str) -> None:
        """Answer 403 where only who reads the firm may read something."""
        if not self.whole:
            raise HTTPException(403, f"{what}: of the whole firm, outside of what you may read "
                                     f"({', '.join(self.nodes)})")

    # ---- records --------------------------------------------------------------------------------------------------
    def sees_alert(self, alert: Alert) -> bool:
        """Return whether an alert may be read: of a node that may be, or that a feed is silent."""
        return self.sees(alert.node) or (alert.node == FIRM and alert.kind in ("stale", "clear")
                                         and alert.limit_id == f"feed.{alert.metric}")

    def control(self, control: Control) -> Control | None:
        """Return a trading state as it may be read: one from outside that binds what is seen comes without its why."""
        if self.sees(control.scope):
            return control
        binds = control.scope == "all" or control.scope in self._binding or control.scope.startswith("instrument:")
        return msgspec.structs.replace(control, reason=WITHHELD, by=WITHHELD) if binds else None

    def limits(self, limits: Iterable[Limit]) -> list[Limit]:
        """Return those of some limits that may be read."""
        return [limit for limit in limits if self.sees(limit.node)]

    def sees_approval(self, asked: Approval, limits: Mapping[str, Limit]) -> bool:
        """Return whether what waits may be read: each node it is about, as it stands and as it is asked for."""
        held = limits.get(str(asked.fields.get("limit_id")))
        nodes = {node for node in (asked.fields.get("node"), held.node if held else None) if node is not None}
        return self.whole or (bool(nodes) and all(self.sees(str(node)) for node in nodes))

    def reasons(self, reasons: Iterable[Reason]) -> list[Reason]:
        """Return why an order was refused, without figures of nodes outside."""
        return [r if r.node is None or self.sees(r.node) else
                msgspec.structs.replace(r, measured=WITHHELD, limit=WITHHELD, limit_id=None) for r in reasons]

    def decision(self, decision: Decision) -> Decision | None:
        """Return a decision as it may be read: of what else the gate saw, its inputs say too much."""
        if self.whole:
            return decision
        if not self.sees_account(decision.account):
            return None
        return msgspec.structs.replace(decision, inputs={}, reasons=self.reasons(decision.reasons),
                                       warnings=self.reasons(decision.warnings))

    # ---- facts of the stream ----------------------------------------------------------------------------------------
    def fact(self, event: str, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return the body of a fact as it may be read; None: not at all."""
        if self.whole:
            return data
        if event == "reject":
            if not self.sees_account(data["account"]):
                return None
            checks = [c if c["node"] is None or self.sees(c["node"]) else c | {"would_be": None, "limit": None}
                      for c in data["checks"]]
            return data | {"checks": checks}
        if event == "breaker":
            control = self.control(msgspec.convert(data, Control, strict=False))
            return None if control is None else data | {"reason": control.reason, "why": control.reason,
                                                        "by": control.by}
        return data if self.sees_alert(msgspec.convert(data, Alert, strict=False)) else None


class Sights:
    """What every user sees; users of the same nodes share it.

    Parameters
    ----------
    accounts : every account that is known, by name
    levels : of the tree
    seq : returns the state's number
    """

    def __init__(self, accounts: Mapping[str, Account], levels: tuple[str, ...], seq: Callable[[], int]) -> None:
        self._accounts, self._levels, self._seq = accounts, levels, seq
        #: how many changes of accounts there have been
        self.changes = 0
        self._held: dict[tuple[str, ...], Sight] = {}

    def of(self, nodes: tuple[str, ...] = (FIRM,)) -> Sight:
        """Return what the holders of some nodes see now."""
        sight = self._held.get(nodes)
        if sight is None:
            sight = self._held[nodes] = Sight(nodes, self._accounts, self._levels)
        sight.look(self.changes, self._seq())
        return sight

"""Which worker speaks for a node: the one that holds all of its rows."""

from __future__ import annotations

from collections.abc import Callable

from models.reference import FIRM, Reference
from models.valued_book import GROUPINGS, INSTRUMENT_GROUPINGS

#: who owns this partition of `positions` reads all others too, and speaks for nodes that span several
LEAD_PARTITION = 0


class NodeOwners:
    """Where every node's rows lie, by what accounts say: rows are sharded by fund.

    Every worker knows all accounts, so all agree, whichever rows each of them holds.

    Parameters
    ----------
    levels : the hierarchy above the position, in order
    partition_of_fund : the partition that rows of a fund are published to
    """

    def __init__(self, reference: Reference, levels: tuple[str, ...], partition_of_fund: Callable[[str], int]) -> None:
        self._reference, self._partition_of_fund = reference, partition_of_fund
        self._fields = [f for f in (*levels, *GROUPINGS[:-INSTRUMENT_GROUPINGS]) if f not in (FIRM, "account")]
        self._partitions: dict[str, int | None] | None = None

    def accounts_changed(self) -> None:
        """Look everything up again when next asked."""
        self._partitions = None

    def partition(self, node: str) -> int | None:
        """Return the partition that all rows of a node lie in; None: several, or not known to be one."""
        if self._partitions is None:
            self._partitions = self._look_up()
        if node.startswith("account:") and node not in self._partitions:
            return self._partition_of_fund("")  # nobody has said yet where it belongs
        return self._partitions.get(node)

    def _look_up(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for name, account in self._reference.account_records.items():
            partition = self._partition_of_fund(account.fund or "")
            found[f"account:{name}"] = partition
            for field in self._fields:
                value = account.under(field)
                if value and found.setdefault(f"{field}:{value}", partition) != partition:
                    found[f"{field}:{value}"] = None
        return found

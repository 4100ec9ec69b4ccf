"""What changed of a gate's orders and of its day since it was written down, and what was written down put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from schemas.gate_state import GateDay, GateEntry, GateOrder, GateTrade, GateVenueDay

if TYPE_CHECKING:
    from models.gate.book import GateBook

Written = list[tuple[bytes, GateEntry | None]]


def cut(gate: GateBook, mine: Callable[[int], bool], trades_of: Callable[[Sequence[str]], list[GateTrade]],
        ) -> tuple[Written, dict[str, int]]:
    """Return what changed of some accounts since the last cut, by key (None: it is gone), and newly executed ids.

    The latter with the places of their accounts.

    Parameters
    ----------
    mine : whether an account, by its place, is one of them
    trades_of : the trades that name an order by one of its ids, as far as positions include them
    """
    changes, out = gate.changes, Written()
    for order_id in [k for k, account in changes.orders.items() if mine(account)]:
        account, w = changes.orders.pop(order_id), gate.working.get(order_id) or gate.done.get(order_id)
        if w is None:
            changes.written.pop(order_id, None)
        else:
            changes.written[order_id] = account
        out.append((f"o|{order_id}".encode(), None if w is None else GateOrder(
            order=w.order, decided_ns=w.decided_ns, session=w.session, earlier=w.earlier, executed=w.executed,
            chains=trades_of((order_id, *w.earlier)))))
    accounts, instruments = list(gate.state.account_index), list(gate.state.instrument_index)
    nodes = gate.state.node_names

    def name(node: int) -> str | None:
        return nodes[node] if node >= 0 else None

    for key in [k for k in changes.days if mine(k[0])]:
        changes.days.discard(key)
        account, instrument, trader, counterparty, venue = key
        day = gate.day_of.get(key)
        names = (accounts[account], instruments[instrument], name(trader), name(counterparty), name(venue))
        out.append((f"d|{'|'.join(x or '' for x in names)}".encode(), None if day is None else GateDay(
            account=names[0], instrument=names[1], trader=names[2], counterparty=names[3], venue=names[4],
            quantity=day[1], value=day[2], executions=day[3])))
    for at in [k for k in changes.venues if mine(k[1])]:
        changes.venues.discard(at)
        held = gate.at_venue.get(at)
        where = (nodes[at[0]], accounts[at[1]], instruments[at[2]])
        out.append((f"v|{'|'.join(where)}".encode(), None if held is None else GateVenueDay(
            venue=where[0], account=where[1], instrument=where[2], quantity=held[0], credit=held[1])))
    executed = {k: account for k, account in changes.executed.items() if mine(account)}
    for order_id in executed:
        del changes.executed[order_id]
    return out, executed


def cut_anew(gate: GateBook, mine: Callable[[int], bool], executed: dict[str, int]) -> None:
    """Have the next cut return all there is of some accounts: what the last one returned was not written down."""
    changes = gate.changes
    changes.orders |= {k: w.account for k, w in (gate.working | gate.done).items() if mine(w.account)}
    changes.days |= {k for k in gate.day_of if mine(k[0])}
    changes.venues |= {k for k in gate.at_venue if mine(k[1])}
    changes.executed = executed | changes.executed


def put(gate: GateBook, entry: GateDay | GateVenueDay, looked: bool = False) -> None:
    """Count what was written down of the day; ``looked``: a person has looked at its trader's executions since."""
    state = gate.state
    account, instrument = state.account_index.get(entry.account), state.instrument_index.get(entry.instrument)
    if account is None or instrument is None:
        return
    if isinstance(entry, GateVenueDay):
        venue = state.standing_node(entry.venue)
        if venue >= 0:
            gate.hold_at_venue((venue, account, instrument), entry.quantity, entry.credit)
        return
    trader, counterparty, venue = (state.standing_node(x) for x in (entry.trader, entry.counterparty, entry.venue))
    key = (account, instrument, trader, counterparty, venue)
    gate.count_ordered(key, gate.nodes_of(key)[0], entry.quantity, entry.value, 0.0 if looked else entry.executions)

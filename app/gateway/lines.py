"""The ladder: a line for each instrument under each lowest node, where it lies now, and what has changed of it.

A line lies under the nodes that the sums of the roll-up know for its rows: an account that moves takes its rows into
other lines. A line without rows is gone. What a scope shows is decided once a turn, and who enters or leaves it is
kept by number, so that a client learns of it at any rate and after any pause.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from models.columns import grown
from models.ladder import NET, ROWS, LadderLines
from models.reference import FIRM
from models.valued_book import ValuedBook

#: lines of a scope that are sent: the largest by value
LADDER_ROWS_MAX = 5_000
#: lines that left a scope, kept by name for clients that come back
LEFT_KEPT = 10_000
#: scopes nobody watches that are kept for clients that come back
SCOPES_KEPT = 64


@dataclass
class Groups:
    """Ladder lines: the accounts under one path of nodes in one instrument, added up."""

    index: dict[tuple[tuple[str, ...], str], int] = field(default_factory=dict)
    id: list[str] = field(default_factory=list)
    instrument: list[str] = field(default_factory=list)
    book: list[str] = field(default_factory=list)
    desk: list[str] = field(default_factory=list)
    currency: list[str] = field(default_factory=list)
    nodes: list[frozenset[str]] = field(default_factory=list)
    named: set[str] = field(default_factory=set)

    def find(self, path: tuple[str, ...], instrument: str) -> int:
        """Return the line of an instrument under a path of nodes, opening it."""
        index = self.index.get((path, instrument))
        if index is None:
            index = self.index[path, instrument] = len(self.instrument)
            names = dict(node.split(":", 1) for node in path if node != FIRM)
            book, desk = names.get("book", ""), names.get("desk", "")
            name = f"{desk}|{book}|{instrument}"
            if name in self.named:  # the same desk and book under other nodes above
                name = "|".join([name, *(v for level, v in names.items() if level not in ("book", "desk"))])
            self.named.add(name)
            self.id.append(name)
            self.instrument.append(instrument)
            self.book.append(book)
            self.desk.append(desk)
            self.currency.append("")
            self.nodes.append(frozenset({FIRM, *path}))
        return index


class ScopeLines:
    """What one scope shows: which lines, since when each, and which ones left."""

    def __init__(self, scope: str, floor: int) -> None:
        self.scope = scope
        #: who left before this number is not known any more
        self.floor = floor
        self.watchers = 0
        self.shown = np.zeros(0, np.int64)
        #: lines there are, of which the largest are shown, and the number of the turn that changed how many
        self.total = self.resized = 0
        self.left: OrderedDict[int, int] = OrderedDict()
        self._entered: dict[int, int] = {}
        self._under = np.zeros(0, np.int64)
        self._looked, self._at = 0, -1

    def under(self, groups: Groups) -> np.ndarray:
        """Return all lines under the node of the scope, also those without rows."""
        n = len(groups.nodes)
        if self._looked < n:
            more = [k for k in range(self._looked, n) if self.scope in groups.nodes[k]]
            self._under = np.concatenate([self._under, np.array(more, np.int64)])
            self._looked = n
        return self._under

    def update(self, groups: Groups, values: np.ndarray, valued: int, seq: int) -> None:
        """Decide what is shown after a turn, and note who entered or left.

        Parameters
        ----------
        values : of lines
        valued : lines that have been added up
        seq : of the turn
        """
        if self._at == seq:
            return
        lines = self.under(groups)
        lines = lines[lines < valued]
        lines = lines[values[lines, ROWS] > 0.0]
        if len(lines) != self.total:
            self.total, self.resized = len(lines), seq
        if len(lines) > LADDER_ROWS_MAX:
            lines = np.sort(lines[np.argsort(-np.abs(values[lines, NET]), kind="stable")[:LADDER_ROWS_MAX]])
        if self._at >= 0:
            for line in np.setdiff1d(lines, self.shown, assume_unique=True).tolist():
                self._entered[line] = seq
                self.left.pop(line, None)
            for line in np.setdiff1d(self.shown, lines, assume_unique=True).tolist():
                self._entered.pop(line, None)
                self.left[line] = seq
                self.left.move_to_end(line)
            while len(self.left) > LEFT_KEPT:
                self.floor = max(self.floor, self.left.popitem(last=False)[1])
        self.shown, self._at = lines, seq

    def since(self, changed: np.ndarray, seq: int) -> np.ndarray:
        """Return the lines that have changed, or come in, since a number.

        Parameters
        ----------
        changed : by line, the number of its last change
        """
        new = changed[self.shown] > seq
        if self._entered:
            came = [line for line, at in self._entered.items() if at > seq]
            if came:
                new |= np.isin(self.shown, came)
        return np.asarray(self.shown[new])

    def gone(self, seq: int) -> list[int]:
        """Return the lines that have left since a number."""
        out = []
        for line, at in reversed(self.left.items()):
            if at <= seq:
                break
            out.append(line)
        return out


class Lines:
    """Every line, the numbers of its changes, and the scopes somebody looks at."""

    def __init__(self, levels: tuple[str, ...]) -> None:
        self._depth = len(levels)
        self.groups = Groups()
        self.sums = LadderLines()
        #: by line, the number of its last change, and of the last one by a trade
        self.changed = np.zeros(0, np.int64)
        self.traded = np.zeros(0, np.int64)
        #: of the last turn that changed a line
        self.seq = 0
        self._scopes: OrderedDict[str, ScopeLines] = OrderedDict()

    def place(self, book: ValuedBook, row: int) -> None:
        """Put a row of the book into the line where its nodes say that it lies."""
        position, names = book.positions[row], book.rollup.node_names
        path = tuple(names[k] for k in book.rollup.ancestors[row, : self._depth].tolist() if k >= 0)
        line = self.groups.find(path, position.instrument)
        self.groups.currency[line] = position.currency
        self.sums.put(row, line, position.ts_source)

    def turn(self, valued: np.ndarray, book: ValuedBook, seq: int) -> int:
        """Add up the lines of rows that were valued; return how many changed."""
        moved, traded = self.sums.add_up(valued, book.rollup)
        n = len(self.groups.instrument)
        if len(self.changed) < n:
            self.changed, self.traded = grown(self.changed, n), grown(self.traded, n)
        self.changed[moved] = seq
        self.traded[moved[traded]] = seq
        if len(moved):
            self.seq = seq
        return len(moved)

    def scope(self, name: str, seq: int) -> ScopeLines:
        """Return what a scope shows after the last turn.

        Parameters
        ----------
        seq : the present number, from which on a scope that is new is followed
        """
        view = self._scopes.get(name)
        if view is None:
            view = self._scopes[name] = ScopeLines(name, seq)
            idle = [k for k, v in self._scopes.items() if not v.watchers and k != name]
            for old in idle[: max(0, len(idle) - SCOPES_KEPT)]:
                del self._scopes[old]
        self._scopes.move_to_end(name)
        view.update(self.groups, self.sums.values, len(self.changed), self.seq)
        return view

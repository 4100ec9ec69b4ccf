"""The ladder: a line for each instrument under each lowest node, where it lies now, and what has changed of it.

A line lies under the nodes that the sums of the roll-up know for its rows: an account that moves takes its rows into
other lines. A line without rows is gone. A scope of the tree shows whole lines; one beside it (an account, a dealer, an
issuer) shows of each line what its own rows come to. What a scope shows is decided once a turn, and who enters or
leaves it is kept by number, so that a client learns of it at any rate and after any pause.
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
#: scopes nobody watches that are kept for clients that come back, and those of them that have sums of their own
SCOPES_KEPT, PARTS_KEPT = 64, 8


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


class Table:
    """What lines come to, of all rows or of those under one node, and the numbers of their changes."""

    def __init__(self) -> None:
        self.sums = LadderLines()
        #: by line, the number of its last change, and of the last one by a trade
        self.changed = np.zeros(0, np.int64)
        self.traded = np.zeros(0, np.int64)
        #: of the last turn that changed a line
        self.seq = 0

    def turn(self, valued: np.ndarray, book: ValuedBook, seq: int) -> int:
        """Add up the lines of rows that were valued; return how many changed."""
        moved, traded = self.sums.add_up(valued, book.rollup)
        n = self.sums.count
        if len(self.changed) < n:
            self.changed, self.traded = grown(self.changed, n), grown(self.traded, n)
        self.changed[moved] = seq
        self.traded[moved[traded]] = seq
        if len(moved):
            self.seq = seq
        return len(moved)


class Part(Table):
    """The lines of the rows under one node beside the tree, numbered as they come.

    Parameters
    ----------
    whole : all rows, each in its line
    """

    def __init__(self, node: str, whole: Table, book: ValuedBook, seq: int) -> None:
        super().__init__()
        self._node, self._whole = node, whole
        #: by line here, its number among all lines
        self.line: list[int] = []
        self._here: dict[int, int] = {}
        index = book.rollup.node_index.get(node, -2)
        under = np.flatnonzero((book.rollup.ancestors[: book.rollup.count] == index).any(axis=1)).tolist()
        for row in dict.fromkeys([*under, *range(max(0, book.rollup.count - 1), book.rollup.count)]):
            self.place(book, row)  # the last one for the room of all
        self.turn(np.arange(book.rollup.count), book, seq)
        self.seq = seq

    def place(self, book: ValuedBook, row: int) -> None:
        """Take a row in where it lies under the node now, and out where it does not."""
        node = book.rollup.node_index.get(self._node)
        here = -1
        if node is not None and node in book.rollup.ancestors[row].tolist():
            line = self._whole.sums.line_of(row)
            here = self._here.setdefault(line, len(self.line))
            if here == len(self.line):
                self.line.append(line)
        self.sums.put(row, here, int(self._whole.sums.trade_t[row]))


class ScopeLines:
    """What one scope shows: which lines, since when each, and which ones left.

    Parameters
    ----------
    part : of a scope beside the tree, what its own rows come to
    """

    def __init__(self, scope: str, floor: int, groups: Groups, table: Table, part: Part | None = None) -> None:
        self.scope, self.part = scope, part
        self.table = table if part is None else part
        self._groups = groups
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

    def named(self, lines: np.ndarray) -> list[int]:
        """Return the numbers of lines among all there are."""
        found: list[int] = lines.tolist()
        return found if self.part is None else [self.part.line[k] for k in found]

    def _lines(self) -> np.ndarray:
        """Return all lines under the node of the scope, also those without rows."""
        if self.part is not None:
            return np.arange(len(self.part.line))
        n = len(self._groups.nodes)
        if self._looked < n:
            more = [k for k in range(self._looked, n) if self.scope in self._groups.nodes[k]]
            self._under = np.concatenate([self._under, np.array(more, np.int64)])
            self._looked = n
        return self._under

    def update(self) -> None:
        """Decide what is shown after a turn, and note who entered or left."""
        values, valued, seq = self.table.sums.values, len(self.table.changed), self.table.seq
        if self._at == seq:
            return
        lines = self._lines()
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

    def since(self, seq: int, traded: bool = False) -> np.ndarray:
        """Return the lines that have changed (or by a trade alone), or come in, since a number."""
        new = (self.table.traded if traded else self.table.changed)[self.shown] > seq
        if self._entered:
            came = [line for line, at in self._entered.items() if at > seq]
            if came:
                new |= np.isin(self.shown, came)
        return np.asarray(self.shown[new])

    def gone(self, seq: int) -> list[str]:
        """Return the names of lines that have left since a number."""
        out = []
        for line, at in reversed(self.left.items()):
            if at <= seq:
                break
            out.append(line)
        return [self._groups.id[k] for k in self.named(np.array(out, np.int64))]


class Lines(Table):
    """Every line, the numbers of its changes, and the scopes somebody looks at.

    Parameters
    ----------
    levels : of the tree; a scope of another level has sums of its own
    """

    def __init__(self, levels: tuple[str, ...], book: ValuedBook) -> None:
        super().__init__()
        self._levels, self._book = levels, book
        self.groups = Groups()
        self._scopes: OrderedDict[str, ScopeLines] = OrderedDict()

    def place(self, row: int) -> None:
        """Put a row of the book into the line where its nodes say that it lies."""
        position, rollup = self._book.positions[row], self._book.rollup
        path = tuple(rollup.node_names[k] for k in rollup.ancestors[row, : len(self._levels)].tolist() if k >= 0)
        line = self.groups.find(path, position.instrument)
        self.groups.currency[line] = position.currency
        self.sums.put(row, line, position.ts_source)
        for part in self._parts():
            part.place(self._book, row)

    def traded_at(self, rows: np.ndarray, ts_ms: np.ndarray) -> None:
        """Note when the last trades of rows reached the broker."""
        for table in (self, *self._parts()):
            table.sums.trade_t[rows] = ts_ms

    def turn(self, valued: np.ndarray, book: ValuedBook, seq: int) -> int:
        """Add up the lines of rows that were valued; return how many changed, those of scopes included."""
        return super().turn(valued, book, seq) + sum(part.turn(valued, book, seq) for part in self._parts())

    def _parts(self) -> list[Part]:
        return [view.part for view in self._scopes.values() if view.part is not None]

    def is_part(self, name: str) -> bool:
        """Return whether a scope lies beside the tree."""
        return name.partition(":")[0] not in self._levels

    def follows(self, name: str) -> bool:
        """Return whether a scope is followed already."""
        return name in self._scopes

    def scope(self, name: str, seq: int) -> ScopeLines:
        """Return what a scope shows after the last turn.

        Parameters
        ----------
        seq : the present number, from which on a scope that is new is followed; what is known then is valued
        """
        view = self._scopes.get(name)
        if view is None:
            part = Part(name, self, self._book, seq) if self.is_part(name) else None
            view = self._scopes[name] = ScopeLines(name, seq, self.groups, self, part)
            idle = [k for k, v in self._scopes.items() if not v.watchers and k != name]
            parts = [k for k in idle if self._scopes[k].part is not None]
            for old in {*idle[: max(0, len(idle) - SCOPES_KEPT)], *parts[: max(0, len(parts) - PARTS_KEPT)]}:
                del self._scopes[old]
        self._scopes.move_to_end(name)
        view.update()
        return view

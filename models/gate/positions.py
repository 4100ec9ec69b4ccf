"""Positions as the gate holds them: in the valued book for exposures, and in the kernel's columns for orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.columns import grown
from models.gate.reservations import Reservations
from models.gate.state import GateState
from models.trading_day import TradingDay
from models.valued_book import TakenPositions, ValuedBook
from schemas.records import Position


class GatePositions(Reservations):
    """A valued book, and where each of its rows is in the kernel's columns."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(state, day)
        self.book = book
        self._places = np.full(1024, -1, np.int64)

    def add_position(self, position: Position, shard: int = 0) -> None:
        """Take a position row in."""
        row = self.book.add_position(position, shard)
        if row >= 0:
            self._open_position(row)
            self._hold_quantities(np.array([row]))

    def add_positions(self, values: Sequence[bytes | None], shard: int = 0) -> TakenPositions:
        """Take a slice of the `positions` topic in; what has no place is named among what was refused."""
        taken = self.book.add_positions(values, shard)
        for k, row in taken.filled:
            try:
                self._open_position(row)
            except ValueError as error:
                taken.refused.append((k, str(error)))
        self._hold_quantities(taken.every_row())
        return taken

    def _open_position(self, row: int) -> None:
        """Find the kernel's place of a row of the valued book."""
        if row >= len(self._places):
            self._places = grown(self._places, len(self.book.rollup.rows), -1)
        if self._places[row] < 0:
            position = self.book.positions[row]
            if self.state.is_left_out(position.account, position.instrument):
                return
            self._places[row] = self.state.position_row(self.state.account(position.account),
                                                        self.state.instrument(position.instrument))

    def _hold_quantities(self, rows: np.ndarray) -> None:
        rows, positions = rows[self._places[rows] >= 0], self.state.positions
        places = self._places[rows]
        positions["quantity"][places] = self.book.rollup.rows["quantity"][rows]
        if self.of_position or self._held:
            for p in np.unique(places).tolist():
                account, instrument = int(positions["account"][p]), int(positions["instrument"][p])
                if self.works(account, instrument):
                    self.hold_position(account, instrument)

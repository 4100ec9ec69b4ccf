"""Positions as outside sources state them: the record, checked as a whole when one is made."""

from __future__ import annotations

from typing import Literal

from schemas.numbers import FiniteNumbers, Name, Number, Text, Timestamp

#: what a roll names: it is of all that an account holds
EVERY_INSTRUMENT = "*"


class External(FiniteNumbers, frozen=True, kw_only=True):
    """A position as an outside source states it: the opening of the day, or a snapshot to reconcile with.

    ``reload`` states nothing: the owner folds that position again from the log and puts it right where it differs.
    ``roll`` (instrument ``*``) begins a day of the account: what was traded before ``ts_event`` is its opening. Both
    have quantity 0, and no figures. ``start_of_day`` begins a position anew: nothing is realised of it yet.
    """

    source: Name
    account: Text
    instrument: Text
    quantity: Number
    ts_event: Timestamp
    kind: Literal["start_of_day", "snapshot", "reload", "roll"]
    average_price: Number | None = None
    #: settlement currency, since the position began
    realised_pnl: Number | None = None

    def __post_init__(self) -> None:
        """Check every number, and that what states nothing has none.

        Raises
        ------
        ValueError
            With the field, what was expected and what it was.
        """
        super().__post_init__()
        if self.kind == "roll" and self.instrument != EVERY_INSTRUMENT:
            raise ValueError(f"instrument: expected {EVERY_INSTRUMENT} with kind roll, was {self.instrument!r}")
        if self.kind == "start_of_day" and self.realised_pnl:
            raise ValueError("realised_pnl: expected none, or 0, with kind start_of_day, from which on it counts, "
                             f"was {self.realised_pnl}")
        if self.kind not in ("roll", "reload"):
            return
        if self.quantity != 0:
            raise ValueError(f"quantity: expected 0 with kind {self.kind}, was {self.quantity}")
        for name in ("average_price", "realised_pnl"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(f"{name}: expected none with kind {self.kind}, was {value}")

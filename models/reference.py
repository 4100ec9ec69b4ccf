"""Reference data as kernels need it: instruments, accounts and the hierarchy, by index."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np

from models.corporate_actions import CorporateActions
from models.interning import InternTable
from models.trade_columns import ReferenceArrays
from schemas.corporate import CorporateAction
from schemas.records import Account, Instrument
from schemas.units import decimal_parts

#: the hierarchy, from the position up; a setting may name other levels, an account carries one field for each
LEVELS = ("book", "desk", "strategy", "fund", "firm")
FIRM = "firm"
#: decimals quantities are counted in where the instrument names no increment
DEFAULT_DECIMALS = 8
#: decimals that quantities may have with all splits
DECIMALS_MAX = 15


def settlement_currency(instrument: Instrument) -> str:
    """Return the currency P&L of an instrument is stated in."""
    return instrument.settlement or instrument.currency


def groups_of(instrument: Instrument) -> dict[str, str | None]:
    """Return by grouping beside the tree the name of the node that positions in an instrument lie under."""
    return {"issuer": instrument.issuer, "sector": instrument.sector, "asset_class": instrument.asset_class,
            "currency": settlement_currency(instrument),
            "pair": instrument.instrument if instrument.asset_class == "fx" else None}


def quantity_decimals(instrument: Instrument) -> int:
    """Return the decimals the instrument's quantities are counted in.

    Raises
    ------
    ValueError
        If the increment has more decimals than int64 counts can carry.
    """
    if instrument.quantity_increment is None:
        return DEFAULT_DECIMALS
    scale = decimal_parts(instrument.quantity_increment, "quantity_increment")[1]
    if scale > 12:
        raise ValueError(f"quantity_increment: expected at most 12 decimals, was {instrument.quantity_increment}")
    return scale


def unit_value(instrument: Instrument) -> float:
    """Return the settlement currency of one counted unit per 1.0 of price (the quanto rate included)."""
    quanto = instrument.quanto_rate if instrument.quanto_rate is not None else Decimal(1)
    return float(instrument.multiplier * quanto / Decimal(10) ** quantity_decimals(instrument))


def check_margin(instrument: Instrument) -> None:
    """Say what is wrong with the margin rates of an instrument.

    Raises
    ------
    ValueError
        If a rate is below 0 or no number, or a tier does not begin where the one before ends.
    """
    low = Decimal(0)
    for k, tier in enumerate(instrument.margin_tiers or ()):
        field = f"margin_tiers[{k}]"
        if not all(rate.is_finite() and rate >= 0 for rate in (tier.initial, tier.maintenance)):
            raise ValueError(f"{field}: expected rates of 0 or more, was {tier.initial} and {tier.maintenance}")
        if not low.is_finite() or (tier.up_to is not None and not (tier.up_to.is_finite() and tier.up_to > low)):
            raise ValueError(f"{field}.up_to: expected more than {low} of the tier before, was {tier.up_to}")
        low = Decimal("Infinity") if tier.up_to is None else tier.up_to
    for field, rate in (("margin_initial", instrument.margin_initial),
                        ("margin_maintenance", instrument.margin_maintenance)):
        if rate is not None and not (rate.is_finite() and rate >= 0):
            raise ValueError(f"{field}: expected a rate of 0 or more, was {rate}")


def _contract(instrument: Instrument) -> tuple[str, str, bool, bool]:
    return (instrument.currency, settlement_currency(instrument), instrument.inverse,
            instrument.premium_in_underlying)


class ContractChangedError(ValueError):
    """A record makes another contract of one that is held; ``standing`` is the record that goes on to hold."""

    def __init__(self, standing: Instrument, record: Instrument) -> None:
        super().__init__("currency, settlement, inverse, premium_in_underlying: expected those of the contract that "
                         f"is held, {_contract(standing)}, was {_contract(record)}: another contract has another name")
        self.standing = standing


class Reference:
    """All instruments and accounts seen so far; later records of the same name replace earlier ones.

    Parameters
    ----------
    partition_of : which source partition owns an account
    """

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        self._partition_of = partition_of
        self.accounts = InternTable()
        self.instruments = InternTable()
        self.account_records: dict[str, Account] = {}
        self.instrument_records: dict[str, Instrument] = {}
        self.actions = CorporateActions()
        self.version = 0
        #: whether anything is held of an instrument, for whoever knows
        self.is_held: Callable[[str], bool] = lambda instrument: False
        self._arrays: ReferenceArrays | None = None

    def add_instrument(self, record: Instrument) -> None:
        """Take an instrument in.

        Raises
        ------
        ValueError
            If its increment or its margin cannot be counted with.
        """
        check_margin(record)
        quantity_decimals(record)
        standing = self.instrument_records.get(record.instrument)
        if standing == record:
            return
        if standing is not None and _contract(standing) != _contract(record) and self.is_held(record.instrument):
            raise ContractChangedError(standing, record)
        self.instruments.intern(record.instrument)
        self.instrument_records[record.instrument] = record
        self._changed()

    def add_action(self, record: CorporateAction) -> None:
        """Take a corporate action in; it is in force from its time on, see `turn`.

        Raises
        ------
        ValueError
            If quantities of the instrument could not be counted with it, or it is of an inverse contract.
        """
        standing = self.instrument_records.get(record.instrument)
        if record.ratio is not None:
            if standing is not None and standing.inverse:
                raise ValueError(f"instrument: expected none that is inverse with kind split, was {record.instrument}")
            decimals = (quantity_decimals(standing) if standing else 0) + self.actions.decimals_beside(record)
            if decimals + decimal_parts(record.ratio, "ratio")[1] > DECIMALS_MAX:
                raise ValueError(f"ratio: expected one by which quantities have at most {DECIMALS_MAX} decimals, "
                                 f"was {record.ratio}")
        if self.actions.put(record):
            self._changed()

    def withdraw_action(self, instrument: str, action_id: str) -> None:
        """Forget a corporate action: it was none."""
        if self.actions.withdraw(instrument, action_id):
            self._changed()

    def turn(self, now_ns: int) -> list[str]:
        """Let what is due by now come into force; return the instruments that it is of."""
        found = self.actions.turn(now_ns)
        if found:
            self._changed()
        return found

    def decimals_of(self, instrument: str) -> int:
        """Return the decimals that quantities of a known instrument are counted in, its splits included."""
        return quantity_decimals(self.instrument_records[instrument]) + self.actions.decimals(instrument)

    def add_account(self, record: Account) -> None:
        """Take an account in."""
        if self.account_records.get(record.account) == record:
            return
        self.accounts.intern(record.account)
        self.account_records[record.account] = record
        self._changed()

    def intern_key(self, account: str, instrument: str) -> tuple[int, int]:
        """Return the indices of a position's key, known or not (a stored position outlives its reference data)."""
        before = len(self.accounts) + len(self.instruments)
        key = self.accounts.intern(account), self.instruments.intern(instrument)
        if len(self.accounts) + len(self.instruments) != before:
            self._changed()
        return key

    def intern_account(self, account: str) -> int:
        """Return the index of an account, known or not."""
        before = len(self.accounts)
        index = self.accounts.intern(account)
        if len(self.accounts) != before:
            self._changed()
        return index

    def key_name(self, account: int, instrument: int) -> bytes:
        """Return ``account|instrument`` of two indices."""
        return f"{self.accounts.names[account]}|{self.instruments.names[instrument]}".encode()

    def _changed(self) -> None:
        self.version += 1
        self._arrays = None

    def arrays(self) -> ReferenceArrays:
        """Return the columns; valid until the next change."""
        if self._arrays is None:
            accounts, instruments = self.accounts.names, self.instruments.names
            found = [self.instrument_records.get(name) for name in instruments]
            more = np.array([self.actions.decimals(name) if self.actions.known(name) else 0 for name in instruments],
                            np.int64)
            self._arrays = ReferenceArrays(
                accounts=self.accounts.arrays(), instruments=self.instruments.arrays(),
                account_known=np.array([name in self.account_records for name in accounts], np.uint8),
                account_partition=np.array([self._partition_of(name) for name in accounts], np.int32),
                instrument_known=np.array([r is not None for r in found], np.uint8),
                quantity_decimals=(np.array([quantity_decimals(r) if r else 0 for r in found]) + more).astype(np.int8),
                unit_value=np.array([unit_value(r) if r else np.nan for r in found], np.float64) / 10.0**more,
                inverse=np.array([bool(r and r.inverse) for r in found], np.uint8),
                # an inverse contract is worth 1 / price: it has none at or below zero
                price_any_sign=np.array([bool(r and r.price_any_sign) for r in found],
                                        np.uint8),
            )
        return self._arrays

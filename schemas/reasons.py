"""Why a record was not applied: a closed set, wire format, never reused."""

from __future__ import annotations

from enum import StrEnum

from schemas.units import FILL_UNITS_MAX, UNITS_MAX


class QuarantineReason(StrEnum):
    """The reason written on a `quarantine` record; the value is wire format."""

    NULL_VALUE = "null_value"
    NOT_JSON = "not_json"
    BAD_FIELD = "bad_field"
    TOO_LARGE = "too_large"
    UNKNOWN_ACCOUNT = "unknown_account"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    QUANTITY_NOT_POSITIVE = "quantity_not_positive"
    QUANTITY_NOT_REPRESENTABLE = "quantity_not_representable"
    QUANTITY_OVERFLOW = "quantity_overflow"
    PRICE_NOT_POSITIVE = "price_not_positive"
    TRADE_ID_REUSED = "trade_id_reused"
    REF_TRADE_UNKNOWN = "ref_trade_unknown"
    BAD_BINARY = "bad_binary"
    NOT_APPLIED = "not_applied"
    SKIPPED = "skipped"
    STATEMENT_TOO_LATE = "statement_too_late"
    NOT_STORED = "not_stored"
    SKIPPED_RECORD = "skipped_record"
    NOT_APPROVED = "not_approved"
    STALE_VERSION = "stale_version"


QUARANTINE_MEANING: dict[QuarantineReason, str] = {
    QuarantineReason.NULL_VALUE: "the record has no value",
    QuarantineReason.NOT_JSON: "the value is not the JSON of one record or of an array of records",
    QuarantineReason.BAD_FIELD: "a field is missing, of the wrong type, or not a finite decimal or time",
    QuarantineReason.TOO_LARGE: "the value is longer than the largest record that is read",
    QuarantineReason.UNKNOWN_ACCOUNT: "no `reference.accounts` record names the account",
    QuarantineReason.UNKNOWN_INSTRUMENT: "no `reference.instruments` record names the instrument",
    QuarantineReason.QUANTITY_NOT_POSITIVE: "the side carries the sign, a quantity is above zero",
    QuarantineReason.QUANTITY_NOT_REPRESENTABLE: "the quantity has more decimals than the instrument's increment",
    QuarantineReason.QUANTITY_OVERFLOW: (
        f"a trade is of more than {FILL_UNITS_MAX:,} units of the instrument's increment (at eight decimals "
        f"{FILL_UNITS_MAX // 10**8:,}), or brings its position, or a statement is, above {UNITS_MAX:,}"),
    QuarantineReason.PRICE_NOT_POSITIVE: "only futures, options and spreads may trade at or below zero",
    QuarantineReason.TRADE_ID_REUSED: "the same account and trade id came before with different content",
    QuarantineReason.REF_TRADE_UNKNOWN: "a correction or bust names a trade that is not in the id window",
    QuarantineReason.BAD_BINARY: "a binary tick block has a wrong magic, version or length",
    QuarantineReason.NOT_APPLIED: "applying the record raised an error: the detail has its class and text",
    QuarantineReason.SKIPPED: "an operator passed over a batch that cannot be read; `offset` is its first",
    QuarantineReason.STATEMENT_TOO_LATE: "a statement is of a time before trades that have left the id window",
    QuarantineReason.NOT_STORED: "the store of history refused a row of it; stages have taken it",
    QuarantineReason.SKIPPED_RECORD: "an operator passed over this record of the log of decisions",
    QuarantineReason.NOT_APPROVED: "it lets more pass than a limit of two people does, and one person wrote it",
    QuarantineReason.STALE_VERSION: "this version of the limit, or a later one, stands with other content",
}

#: what a person does about it
QUARANTINE_REMEDY: dict[QuarantineReason, str] = {
    QuarantineReason.NULL_VALUE: "nothing to bring back; have the sender send a value",
    QuarantineReason.NOT_JSON: "have the sender send it again as JSON",
    QuarantineReason.BAD_FIELD: "have the sender correct the field and send it again; as it is it fails again",
    QuarantineReason.TOO_LARGE: "have the sender split it into smaller records",
    QuarantineReason.UNKNOWN_ACCOUNT: "publish the account (`deskrisk reference load FOLDER`), then retry",
    QuarantineReason.UNKNOWN_INSTRUMENT: "publish the instrument (`deskrisk reference load FOLDER`), then retry",
    QuarantineReason.QUANTITY_NOT_POSITIVE: "have the sender send the quantity above zero, with the side",
    QuarantineReason.QUANTITY_NOT_REPRESENTABLE: "correct the quantity, or the instrument's increment and retry",
    QuarantineReason.QUANTITY_OVERFLOW: "correct the quantity, or the instrument's increment and retry",
    QuarantineReason.PRICE_NOT_POSITIVE: "correct the price, or the instrument's asset class and retry",
    QuarantineReason.TRADE_ID_REUSED: "have the sender give the trade an id of its own, or send a correction",
    QuarantineReason.REF_TRADE_UNKNOWN: "bring back the trade it names first, then retry",
    QuarantineReason.BAD_BINARY: "have the sender send the block again in the packed form of version 1 or 2",
    QuarantineReason.NOT_APPLIED: "report the class and text; retry with a version that is mended",
    QuarantineReason.NOT_APPROVED: "ask for it on the page or with `deskrisk limits set`: a second person approves it",
    QuarantineReason.STALE_VERSION: "have the sender read what stands, and send the change as the next version",
    QuarantineReason.SKIPPED: "have the sender send what the batch held again, in a form that can be read",
    QuarantineReason.STATEMENT_TOO_LATE: "have the source state what it holds now",
    QuarantineReason.NOT_STORED: "correct the table or the record; the row is missing in the store alone",
    QuarantineReason.SKIPPED_RECORD: "see at the venue whether the order it was about works, and cancel it there",
}

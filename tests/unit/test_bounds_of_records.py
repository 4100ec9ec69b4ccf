"""Times and quantities outside their bounds: refused with the value read both ways, and the state as it was."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.trade_refusals import REASONS, detail_of
from app import control
from app.limit_files import check_limits_of
from models.contracts import Contracts
from models.gate.limit_nodes import METRICS_OF_LIMITS
from models.market import Market
from models.trade_columns import READ
from models.trade_decode import decode_trades
from schemas.codec import decoder_of, encode
from schemas.corporate import CorporateAction
from schemas.reasons import QuarantineReason
from schemas.records import Account, External, Instrument, Limit
from schemas.refusal import Refused, reason_of
from schemas.units import FILL_UNITS_MAX, FUTURE_NS, TS_END, UNITS_MAX, latest_of, parse_ts_ns
from tables.position_partition import PositionPartition
from tables.refold import fold, open_from
from tests.folding import feed, new_partition, trade

T0 = 1_795_000_000_000_000_000
MS = T0 // 1_000_000


def statement(quantity: str, source: str = "PB1", ts: Any = T0) -> External:
    return External(source=source, account="A1", instrument="ACME", quantity=Decimal(quantity), average_price=Decimal(1), kind="start_of_day", ts_event=ts)


def quantity_of(part: PositionPartition) -> str | None:
    return part.records(np.arange(1))[0].quantity if len(part.positions) else None


@pytest.mark.parametrize("sign", ["", "-"])
def test_statements_that_do_not_fit_the_counter_change_nothing(sign: str) -> None:
    part = new_partition()
    with pytest.raises(Refused) as one:
        open_from(part, statement(f"{sign}100000000000000000"), 2, MS)
    assert reason_of(one.value, b"", External)[0] is QuarantineReason.QUANTITY_OVERFLOW and quantity_of(part) is None
    most = Decimal(UNITS_MAX // 2) / 100
    open_from(part, statement(f"{sign}{most:.0f}"), 2, MS)
    held = quantity_of(part)
    with pytest.raises(Refused):
        open_from(part, statement(f"{sign}{2 * most // 1:.0f}", "PB2"), 2, MS)
    assert quantity_of(part) == held
    open_from(part, statement(f"{sign}5", "PB3"), 2, MS)
    assert Decimal(str(quantity_of(part))) == Decimal(str(held)) + Decimal(f"{sign}5")


def statuses_of(part: PositionPartition, *quantities: str, side: str = "buy") -> list[int]:
    return feed(part, [trade(f"T{side}{k}", side, q, "1", T0 + k, instrument="ACME") for k, q in enumerate(quantities)])


@pytest.mark.parametrize(("quantity", "reason", "says"), [
    (Decimal(FILL_UNITS_MAX // 100), None, ""), (Decimal(FILL_UNITS_MAX // 100 + 1), QuarantineReason.QUANTITY_OVERFLOW, f"at most {FILL_UNITS_MAX} units of the instrument's increment in a trade"),
    (Decimal(92233720368547758), QuarantineReason.QUANTITY_OVERFLOW, f"and with it {UNITS_MAX} in its position, was 92233720368547758"),
    (Decimal("0.001"), QuarantineReason.QUANTITY_NOT_REPRESENTABLE, "a multiple of the instrument's increment, was 0.001"), (Decimal(0), QuarantineReason.QUANTITY_NOT_POSITIVE, "a number above 0, was 0")])
def test_a_quantity_that_cannot_be_counted_is_told_by_what_it_misses(quantity: Decimal, reason: QuarantineReason | None, says: str) -> None:
    part, said = new_partition(), [json.dumps(trade("T", "buy", f"{quantity:f}", "1", T0, instrument="ACME")).encode()]
    (status,) = feed(part, [json.loads(said[0])])
    assert REASONS.get(status) is reason
    if reason is not None:
        assert says in detail_of(decode_trades(list(said)), 0, reason)


def test_one_bound_is_that_of_fills_of_statements_and_of_their_sums() -> None:
    most = Decimal(UNITS_MAX // 100)
    part = new_partition()
    open_from(part, statement(f"{most:f}"), 2, MS)
    with pytest.raises(Refused, match=str(UNITS_MAX)):
        open_from(part, statement("1", "PB2"), 2, MS)
    assert REASONS[statuses_of(part, "1")[0]] is QuarantineReason.QUANTITY_OVERFLOW
    assert [s in REASONS for s in statuses_of(part, "1", side="sell")] == [False], "what makes it smaller fits"
    part, half = new_partition(), Decimal(UNITS_MAX // 200)
    assert [REASONS.get(s) for s in statuses_of(part, f"{half:f}", f"{half:f}", "1")] == [None, None, QuarantineReason.QUANTITY_OVERFLOW]


@pytest.mark.parametrize("value", ["-5", -0.001, "-1e-9"])
@pytest.mark.parametrize("metric", [*sorted(METRICS_OF_LIMITS), "override"])
def test_no_limit_is_below_nothing_whoever_writes_it(metric: str, value: Any, tmp_path: Path) -> None:
    """From the topic, over HTTP, from a file and by a command: each of them makes the same record, or reads it."""
    fields = {"limit_id": "order:O~override" if metric == "override" else "L", "node": "order:O" if metric == "override" else "firm", "metric": metric, "limit": value, "reason": "a test of bounds"}
    with pytest.raises(ValueError) as one:
        decoder_of(Limit).decode(json.dumps(fields | {"version": 1, "by": "ann"}))
    said = f"limit: expected a number of at least 0, was {Decimal(str(value))}"
    assert said in str(one.value)
    assert reason_of(one.value, b"", Limit)[0] is QuarantineReason.BAD_FIELD
    with pytest.raises(control.Refused, match="limit: expected a number of at least 0"):
        control.next_version(None, fields, "ann", T0)
    path = tmp_path / "limits.csv"
    path.write_text("limit_id,node,metric,limit\n" + ",".join(str(fields[f]) for f in ("limit_id", "node", "metric", "limit")) + "\n")
    with pytest.raises(control.Refused, match="limit: expected a number of at least 0"):
        check_limits_of(path, "ann")


@pytest.mark.parametrize(("value", "says"), [
    (1_700_000_060_000, "of 1970 as nanoseconds, of 2023 as milliseconds"), (1_795_900_000_000, "of 1970 as nanoseconds, of 2026 as milliseconds"),
    (1_795_900_000, "of 1970 as nanoseconds, of 2026 as seconds"), (1_795_900_000_000_000, "of 1970 as nanoseconds, of 2026 as microseconds"),
    ("2016-12-31T23:59:60Z", "leap seconds are not taken"), ("9999-12-31T23:59:59-05:00", "from 2000-01-01"), (10**400, "from 2000-01-01")])
def test_a_time_of_another_unit_is_read_both_ways(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match="ts_event: expected") as error:
        parse_ts_ns(value)
    assert says in str(error.value)


@pytest.mark.parametrize(("text", "ns"), [("2000-01-01T00:00:00Z", 946_684_800 * 10**9), ("2026-11-20T10:00:00.123456789+05:30", 1_795_149_000_123_456_789),
                                          ("2261-12-31T23:59:59.999999999Z", TS_END - 1), ("2024-02-29t00:00:00z", 1_709_164_800 * 10**9)])
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_ts_ns(text) == ns


def test_a_log_that_is_folded_again_takes_and_refuses_what_was_taken_and_refused() -> None:
    """R1: the bound is of the time in the log, whenever the log is read."""
    stamps = [MS, MS, MS + 3_600_000, 0]
    trades = [trade(f"T{k}", "buy", "1", "1", ts) for k, ts in enumerate((T0 + FUTURE_NS, T0 + FUTURE_NS + 1, T0 + FUTURE_NS + 1, T0))]
    raws: list[bytes | None] = [json.dumps(t).encode() for t in trades]
    for now in (T0 + 3_600 * 10**9, T0 + 400 * 86_400 * 10**9):
        live = decode_trades(raws, latest_of(np.array(stamps), FUTURE_NS, now))
        assert (live.rows["status"] == READ).tolist() == [True, False, True, True]
    again = new_partition()
    fold(again, [(k, ms, raw) for k, (ms, raw) in enumerate(zip(stamps, raws, strict=True)) if raw is not None])
    assert again.records(np.arange(1))[0].trades == 3


@pytest.mark.parametrize("until", ["2026-12-31", "June", "9999-12-31T23:59:59Z", 1_795_000_000_000])
def test_the_end_of_a_limit_is_a_time_or_the_limit_is_refused(until: Any) -> None:
    limit = {"limit_id": "L", "node": "firm", "metric": "gross", "limit": "1", "version": 1, "by": "r", "reason": "test", "until": until}
    with pytest.raises(msgspec.ValidationError, match="until: expected"):
        decoder_of(Limit).decode(encode(limit))


@pytest.mark.parametrize("before", [None, "2027-06-18"])
def test_an_option_whose_expiry_is_no_date_stands_without_greeks(before: str | None) -> None:
    contracts = Contracts(Market("USD"))
    option = Instrument(instrument="O", asset_class="option", currency="USD", underlying="U", right="call", strike=Decimal(100), expiry=before)
    contracts.market.set_mark("U", 100.0, False)
    contracts.add(option)
    for expiry in ("9999-12-31", "JAN27", "15/01/2027", "2027-01"):
        contracts.add(msgspec.structs.replace(option, expiry=expiry))
        contracts.refresh(T0, date(2026, 11, 18))
        assert not np.isfinite(contracts.market.unit_greeks[contracts.market.instrument("O")]).all()


@pytest.mark.parametrize(("field", "value"), [
    ("instrument", "A|B"), ("instrument", "A\n"), ("instrument", ""), ("price_increment", "0"), ("quantity_increment", "-1"),
    ("prior_close", "-5"), ("prior_close", "-0.0001"), ("multiplier", "0"), ("adv", "0"), ("quanto_rate", "-2"), ("prior_close_date", "2026-W01-1"),
    ("prior_close_date", "yesterday")])
def test_an_instrument_that_nothing_can_be_counted_with_is_refused_by_its_field(field: str, value: str) -> None:
    record = {"instrument": "X", "asset_class": "equity", "currency": "USD"} | {field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        decoder_of(Instrument).decode(json.dumps(record).encode())


@pytest.mark.parametrize("name", ["A|B", "A\u0007", ""])
def test_the_name_of_an_account_holds_no_bar_that_keys_are_joined_with(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="account"):
        decoder_of(Account).decode(json.dumps({"account": name, "book": "B", "desk": "D", "strategy": "S", "fund": "F"}).encode())


@pytest.mark.parametrize(("asset_class", "inverse", "taken"), [("future", False, True), ("option", False, True), ("future", True, False), ("fx", False, False), ("bond", False, False)])
def test_a_prior_close_has_the_sign_that_its_price_may_have(asset_class: str, inverse: bool, taken: bool) -> None:
    record = {"instrument": "X", "asset_class": asset_class, "currency": "USD", "inverse": inverse, "prior_close": "-5"}
    if taken:
        assert decoder_of(Instrument).decode(json.dumps(record).encode()).price_any_sign
        return
    with pytest.raises(msgspec.ValidationError, match=r"prior_close: expected a price of class .*0 or more, was -5"):
        decoder_of(Instrument).decode(json.dumps(record).encode())


@pytest.mark.parametrize(("name", "price", "taken"), [
    ("ACME", "-1", False), ("ACME", "0", True), ("EURUSD", "-0.01", False), ("FUT", "-37.63", True), ("FUT", "0", True), ("INV", "0", False), ("INV", "-5", False), ("INV", "5", True)])
def test_a_statement_has_an_average_that_executions_could_come_to(name: str, price: str, taken: bool) -> None:
    part = new_partition()
    feed(part, [trade("T1", "buy", "7", "5", T0 - 60 * 10**9, instrument=name)])
    stated, before = msgspec.structs.replace(statement("100"), instrument=name, average_price=Decimal(price)), part.records(np.arange(1))
    if taken:
        open_from(part, stated, part.reference.decimals_of(name), MS)
        assert Decimal(str(quantity_of(part))) == 100
        return
    with pytest.raises(Refused, match=f"average_price: expected .*, was {price}") as error:
        open_from(part, stated, part.reference.decimals_of(name), MS)
    assert error.value.reason is QuarantineReason.PRICE_NOT_POSITIVE and part.records(np.arange(1)) == before


@pytest.mark.parametrize(("more", "says"), [
    ({"instrument": "I"}, "instrument: expected * with kind roll, was 'I'"), ({"quantity": "100"}, "quantity: expected 0 with kind roll, was 100"),
    ({"average_price": "1"}, "average_price: expected none with kind roll"), ({"realised_pnl": "0"}, "realised_pnl: expected none with kind roll"),
    ({"kind": "reload", "instrument": "I", "quantity": "-1"}, "quantity: expected 0 with kind reload"), ({"source": "a|b"}, "$.source"), ({"source": "a\u0007"}, "$.source"),
    ({"source": "a\n"}, "$.source"), ({"kind": "start_of_day", "instrument": "I", "realised_pnl": "1234.5"}, "realised_pnl: expected none, or 0, with kind start_of_day")])
def test_a_statement_says_nothing_that_its_kind_does_not_use(more: dict[str, Any], says: str) -> None:
    roll = {"source": "ops", "account": "A", "instrument": "*", "quantity": "0", "ts_event": T0, "kind": "roll"}
    assert decoder_of(External).decode(json.dumps(roll).encode()).kind == "roll"
    with pytest.raises(msgspec.ValidationError) as error:
        decoder_of(External).decode(json.dumps(roll | more).encode())
    assert says in str(error.value)


@pytest.mark.parametrize(("cls", "field"), [(CorporateAction, "instrument"), (CorporateAction, "action_id"), (Account, "book"), (Account, "desk"), (Account, "strategy"), (Account, "fund")])
def test_names_that_keys_are_joined_of_hold_no_bar(cls: type[msgspec.Struct], field: str) -> None:
    good: dict[str, Any] = {"action_id": "S1", "instrument": "X", "kind": "split", "effective_ts": T0, "ratio": "2", "account": "A", "book": "B", "desk": "D", "strategy": "S", "fund": "F"}
    decoder_of(cls).decode(json.dumps(good).encode())
    for name in ("A|B", "A\u0000"):
        with pytest.raises(msgspec.ValidationError, match=field):
            decoder_of(cls).decode(json.dumps(good | {field: name}).encode())

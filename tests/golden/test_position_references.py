"""Positions as other systems publish them: average cost, FIFO, flips, fees, inverse contracts, account currency."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.reference import Reference
from schemas.records import Account, Instrument
from tables.position_partition import PositionPartition
from tests.folding import feed

T0 = 1_800_000_000_000_000_000


def partition(inverse: bool = False) -> PositionPartition:
    """Return a partition with one instrument counted to eight decimals."""
    out = Reference(lambda account: 0)
    out.add_instrument(Instrument(instrument="X", asset_class="perpetual", currency="Q", inverse=inverse,
                                  quantity_increment=Decimal("0.00000001")))
    out.add_account(Account(account="A1", book="B", desk="D", strategy="S", fund="F"))
    return PositionPartition(0, out, 4096, 0)


def fold(part: PositionPartition, fills: list[dict[str, Any]], start: int = 0) -> Any:
    """Apply reference fills; return the record."""
    trades = [{"trade_id": f"T{start + i}", "account": "A1", "instrument": "X", "side": f["side"],
               "quantity": repr(f["qty"]), "price": repr(f["price"]), "ts_event": T0 + start + i,
               "fees": [{"amount": repr(f.get("fee", 0.0)), "currency": "Q"}]} for i, f in enumerate(fills)]
    for t in trades:
        fee = float(t.pop("fees")[0]["amount"])
        feed_one(part, t, fee)
    return part.records(np.array([0]))[0]


def feed_one(part: PositionPartition, trade: dict[str, Any], fee: float) -> None:
    """Apply one trade with a fee in settlement currency."""
    from models import trade_columns as tc
    from models.trade_decode import decode_trades

    decoded = decode_trades([json.dumps(trade).encode()])
    decoded.rows["fee"] = fee
    tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
    part.positions.apply(decoded.rows, part.reference.arrays())
    assert decoded.rows["status"].tolist() == [tc.APPLIED]


def cases(data: Path, name: str) -> list[dict[str, Any]]:
    """Return the cases of a reference file."""
    return list(json.loads((data / "reference" / f"{name}.json").read_text())["cases"])


def test_average_cost(data: Path) -> None:
    for case in cases(data, "positions_average_cost"):
        instrument = case["instrument"]
        part = partition(instrument["inverse"])
        places = instrument.get("pnl_decimals", 9)
        for expect in case["expect"]:
            done = int(part.positions.arrays.rows["trades"][0])
            record = fold(part, case["fills"][done : expect["after_fill"]], done)
            fees = record.fees.get("Q", 0.0)
            assert float(record.quantity) == pytest.approx(expect["qty"], abs=1e-8), case["id"]
            if "avg_price" in expect and expect["qty"]:
                assert record.average_price == pytest.approx(expect["avg_price"], rel=1e-6), case["id"]
            if "realized_net" in expect:
                assert record.realised_pnl - fees == pytest.approx(expect["realized_net"],
                                                                   abs=0.51 * 10**-places + 1e-6), case["id"]
        q, average = float(record.quantity), record.average_price
        for mark in case.get("marks", ()):
            if "unrealized" in mark and average:
                got = (q * (1 / average - 1 / mark["price"]) if instrument["inverse"] else q * (mark["price"] - average))
                assert got == pytest.approx(mark["unrealized"], abs=0.51 * 10**-places + 1e-6), case["id"]


def test_fifo(data: Path) -> None:
    for case in cases(data, "positions_fifo_lifo"):
        record = fold(partition(), case["fills"])
        if "fifo" in case:
            assert record.fifo.realised_pnl == pytest.approx(sum(t["pnl"] for t in case["fifo"]), abs=1e-9), case["id"]


def test_flips_and_fees(data: Path) -> None:
    for case in cases(data, "positions_flip_fees"):
        record = fold(partition(), case["fills"])
        net = record.realised_pnl - record.fees.get("Q", 0.0)
        want = sum(part["realized_net"] for part in (case["open"], case["exited"]) if part)
        assert net == pytest.approx(want, abs=1e-9), case["id"]
        assert float(record.quantity) == (case["open"]["qty"] if case["open"] else 0), case["id"]


def test_account_currency(data: Path) -> None:
    for case in cases(data, "positions_account_currency"):
        part = partition()
        start = case["start_qty"]
        feed(part, [{"trade_id": "start", "account": "A1", "instrument": "X", "side": "buy" if start > 0 else "sell",
                     "quantity": str(abs(start)), "price": str(case["start_avg"]), "ts_event": T0 - 1}])
        record = fold(part, [case["fill"]])
        assert record.realised_pnl * case["fx_to_account"] == pytest.approx(case["last_trade_profit_account"]), case["id"]


def test_golden_vector_and_the_seed_example() -> None:
    record = fold(partition(), [{"side": "buy", "qty": 100, "price": 50.0}, {"side": "sell", "qty": 150, "price": 55.0},
                                {"side": "buy", "qty": 50, "price": 52.0}])
    assert (record.quantity, record.realised_pnl) == ("0", 650.0)
    record = fold(partition(), [{"side": "sell", "qty": 12_500_000, "price": 1.08432},
                                {"side": "buy", "qty": 2_000_000, "price": 1.08420}])
    assert record.quantity == "-10500000" and record.average_price == pytest.approx(1.08432, rel=1e-15)
    assert record.realised_pnl == pytest.approx(240.0) and record.break_even_price == pytest.approx(1.0843429, abs=5e-8)


def test_the_inverse_average_is_harmonic() -> None:
    part = partition(inverse=True)
    record = fold(part, [{"side": "buy", "qty": 100, "price": 10_000.0}, {"side": "buy", "qty": 100, "price": 20_000.0},
                         {"side": "sell", "qty": 200, "price": 15_000.0}])
    assert record.realised_pnl == pytest.approx(100 / 10_000 + 100 / 20_000 - 200 / 15_000)

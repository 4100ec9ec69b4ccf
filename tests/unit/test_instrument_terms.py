"""Terms of instruments: what no contract can have is refused by all alike, what exists is taken, whatever is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from agents.reference_tail import ReferenceTail
from agents.router import Place
from app.files.refusals import FileRefused
from app.offline import Offline
from app.reference_files import read_folder
from app.settings import Settings
from models.reference import Reference
from schemas.topics import TOPICS


class Quiet:
    """Counters and a client that take all there is."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


OPTION = {"instrument": "X", "asset_class": "option", "currency": "USD", "underlying": "U", "right": "call", "strike": "100", "expiry": "2027-06-18"}
BARRIER, DIGITAL = {**OPTION, "barrier_kind": "down_and_out", "barrier": "90"}, {**OPTION, "digital_kind": "cash_or_nothing", "payout": "5"}
BOND = {"instrument": "X", "asset_class": "bond", "currency": "USD", "coupon": "4", "maturity": "2034-05-15"}
FORWARD = {"instrument": "X", "asset_class": "fx_forward", "currency": "USD", "underlying": "EURUSD", "expiry": "2027-06-18"}
BACHELIER = {**OPTION, "model": "bachelier"}
#: a record, a term, and the field that it is refused by; None: it is taken, it says something
TERMS: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    (OPTION, {"strike": "0"}, "strike"), (OPTION, {"strike": "-5"}, "strike"), (OPTION, {"model": "black_scholes", "strike": "-5"}, "strike"),
    (OPTION, {"asset_class": "fx_option", "strike": "-1"}, "strike"), (OPTION, {"right": None, "strike": "-5"}, "strike"), (DIGITAL, {"strike": "0"}, "strike"),
    (BACHELIER, {"strike": "0"}, None), (BACHELIER, {"strike": "-37.63"}, None), (OPTION, {"strike": None}, None),
    (OPTION, {"underlying": "X"}, "underlying"), (BACHELIER, {"underlying": "X"}, "underlying"), (FORWARD, {"underlying": "X"}, "underlying"),
    (BARRIER, {"barrier": "-90"}, "barrier"), (BARRIER, {"rebate": "-1"}, "rebate"), (BARRIER, {"rebate": "3"}, None), (OPTION, {"barrier": "90"}, "barrier"),
    (OPTION, {"rebate": "1"}, "rebate"), (OPTION, {"barrier": "0", "rebate": "0", "payout": "0"}, None), (BARRIER, {"barrier": None}, None), (BARRIER, {"barrier": "0"}, None),
    (BARRIER, {"style": "american"}, None), (DIGITAL, {"payout": "-5"}, "payout"), (DIGITAL, {"payout": "0"}, "payout"), (DIGITAL, {"payout": None}, None),
    (DIGITAL, {"digital_kind": "asset_or_nothing"}, "payout"), (OPTION, {"payout": "5"}, "payout"),
    (OPTION, {"expiry": "JAN27"}, None), (OPTION, {"expiry": "9999-12-31"}, None),  # counted as without Greeks: it may be the form of a venue
    *((BOND, {"frequency": f}, "frequency") for f in (-2, 0, 3, 5, 6, 24, 365)), *((BOND, {"frequency": f}, None) for f in (1, 2, 4, 12, None)),
    (BOND, {"dated": "2034-05-15"}, "dated"), (BOND, {"dated": "2035-01-01"}, "dated"), (BOND, {"dated": "2024-05-15"}, None), (BOND, {"maturity": "9999-12-31"}, None),
    (BOND, {"dated": "2024-05-15", "first_coupon": "2024-05-15"}, "first_coupon"), (BOND, {"first_coupon": "2035-01-01"}, "first_coupon"), (BOND, {"coupon": "-0.5"}, None),
    (BOND, {"asset_class": "money_market", "dated": "2034-05-16"}, "dated"), (BOND, {"asset_class": "money_market", "frequency": 0}, None),
    *(({"instrument": "EURUSD", "asset_class": kind, "currency": "USD"}, {"inverse": True}, "inverse") for kind in ("equity", "bond", "fx", "cash", "fx_forward", "money_market")),
    *(({"instrument": "X", "asset_class": kind, "currency": "USD"}, {"inverse": True}, None) for kind in ("future", "perpetual")),
    # what a class has no use for says nothing on the topic: feeds fill such fields with zeros
    ({"instrument": "X", "asset_class": "equity", "currency": "USD"}, {"strike": "0", "frequency": 0, "barrier": "0", "expiry": ""}, None)]


@pytest.mark.parametrize(("good", "term", "field"), TERMS, ids=[f"{g['asset_class']} {t}" for g, t, _ in TERMS])
def test_terms_that_no_contract_of_the_class_can_have_are_refused_by_every_reader(good: dict[str, Any], term: dict[str, Any], field: str | None, tmp_path: Path) -> None:
    raw = json.dumps(good | term).encode()
    tail = ReferenceTail(cast(Any, Quiet()), {t.name: t.name for t in TOPICS}, Reference(lambda _: 0), cast(Any, Quiet()))
    offline = Offline(Settings(partitions=1)).follow("reference.instruments")
    place = Place("reference.instruments", 0, 1, good["instrument"])
    said = {name: router.hand_on(raw, place) for name, router in (("stages", tail._router), ("tools", offline.router))}
    if field is None:
        assert said == {"stages": None, "tools": None}
        return
    (tmp_path / "instruments.jsonl").write_bytes(raw)
    (tmp_path / "accounts.csv").write_text("account,book,desk,strategy,fund\nA,B,D,S,F\n")
    with pytest.raises(FileRefused) as refused:
        read_folder(tmp_path)
    was = "none" if term.get(field, good.get(field)) is None else str(term.get(field, good.get(field))).lower()
    for reason, detail in (*said.values(), ("bad_field", str(refused.value).partition(": ")[2])):  # type: ignore[misc]
        assert reason == "bad_field" and detail.startswith(f"{field}: expected ") and was in detail.lower(), detail

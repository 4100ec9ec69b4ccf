"""The rules of the gate as a table a risk manager can read; every row through the kernel and through the naive twin."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from models.gate.kernel import check_order
from models.gate.state import FIGURES, METRICS
from schemas.controls import Check
from tests.property.test_gate import ROLES, T0, build, codes, expected

NAN, INF = float("nan"), float("inf")
TABLE = Path(__file__).resolve().parent.parent / "tables" / "gate_rules.txt"
ROWS = [[c.strip() for c in line.split("|")] for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
OPEN: dict[str, Any] = {
    "order": {"side": 1.0, "quantity": 1.0, "executed": 0.0, "replaced": 0.0, "was_price": NAN, "same_names": True, "price": 100.0, "ts_ns": T0, "algo": -1, "same_ns": 0, "state": 0, "market": False, "stop": False, "stop_price": NAN, "opposite": NAN, "reduce_only": False, "locate": False, "exempt": False, "permitted": True, "action": 0},
    "instrument": {**dict.fromkeys(("restricted", "equity", "price_test", "inverse", "stale", "state", "collar_ticks", "drift_bps", "unit_vega", "positive", "base_cash"), 0), "shortable": 1,
                   "mid": 100.0, "bid": 99.9, "ask": 100.1, "last": 100.0, "prior_close": 100.0, "tick": 0.01, "collar_bps": 100.0, "drift_low": NAN, "drift_high": NAN,
                   **dict.fromkeys(("soft_bps", "soft_ticks", "soft_drift", "soft_low", "soft_high"), NAN),
                   "unit": 1.0, "accrued": 0.0, "discount": 1.0, "tiers": [(INF, 0.0)], "unit_delta": 0.0, "unit_var": 0.0, "price_ns": T0, "age_max_ns": 10**10},
    "known": True, "account_state": 0, "required": True, "all": 0, "positions_age_ns": 0,
    "position": {**dict.fromkeys(("quantity", "working_buy", "working_sell"), 0.0), "best_buy": -INF, "best_sell": INF, "long_limit": NAN,
                 "short_limit": NAN, "soft_long": NAN, "soft_short": NAN},
    "nodes": [{"value": dict.fromkeys(FIGURES, 0.0), "limit": dict.fromkeys(METRICS, NAN), "soft": dict.fromkeys(METRICS, NAN), "state": 0, "nav": NAN, "exposure_ns": T0, "windows": []}
              for _ in ROLES],
    "shares": []}


def case_of(order: str, change: str) -> dict[str, Any]:
    """Return the case of a row."""
    case = copy.deepcopy(OPEN)
    firm = case["nodes"][ROLES.index("firm")]
    firm["limit"] |= {"order_quantity": 1e9, "order_value": 1e12}
    words = order.split()
    case["order"] |= {"side": 1.0 if words[0] == "buy" else -1.0, "quantity": float(words[1]), "market": "market" in words, "locate": "locate" in words,
                      "exempt": "exempt" in words, "algo": 0 if "algo" in words else -1, "action": int("replace" in words)}
    for word in ("executed", "replaced"):
        case["order"][word] = float(words[words.index(word) + 1]) if word in words else 0.0
    case["order"] |= {"reduce_only": "reduce_only" in words, "stop": "stop" in words, "stop_price": float(words[words.index("stop") + 1]) if "stop" in words else NAN}
    case["order"]["market"] |= "stop" in words and "@" not in words
    case["order"]["price"] = float(words[words.index("@") + 1]) if "@" in words else NAN
    for item in change.split():
        path, _, text = item.partition("=")
        parts = path.split(".")
        if parts[0] == "node":
            if parts[1] == "share" and not case["shares"]:
                case["shares"] = [copy.deepcopy(OPEN["nodes"][0])]
            node = case["shares"][0] if parts[1] == "share" else case["nodes"][ROLES.index(parts[1])]
            if parts[2] == "window":
                set_window(node, int(parts[3]), ".".join(parts[4:]), text)
            elif parts[2] == "soft":
                # the limit is a soft one; what holds of the firm in any case stays
                caps = {"order_quantity": 1e9, "order_value": 1e12} if parts[1] == "firm" else {}
                node["soft"][text], node["limit"][text] = node["limit"][text], caps.get(text, NAN)
            elif parts[2] == "softly":
                node["soft"][parts[3]] = float(text)
            elif parts[2] == "age_ms":
                node["exposure_ns"] = T0 - int(text) * 1_000_000
            elif len(parts) == 4:
                node[parts[2]][parts[3]] = float(text)
            else:
                node[parts[2]] = int(text) if parts[2] == "state" else float(text)
        elif path == "account.state":
            case["account_state"] = int(text)
        elif path == "account.known":
            case["known"] = bool(int(text))
        elif path == "positions.age_ms":
            case["positions_age_ns"] = int(text) * 1_000_000
        elif path == "instrument.known":
            case["instrument"] = None
        elif path == "instrument.margin":  # a rate, or up_to:rate,up_to:rate
            tiers = [tier.rpartition(":") for tier in text.split(",")]
            case["instrument"]["tiers"] = [(float(up_to or "inf"), float(rate)) for up_to, _, rate in tiers]
        elif path == "instrument.price_age_ms":
            case["instrument"]["price_ns"] = T0 - int(text) * 1_000_000
        elif path == "order.same_age_ms":
            case["order"]["same_ns"] = T0 - int(text) * 1_000_000
        elif path == "order.state":
            case["order"]["state"] = int(text)
        elif parts[0] == "settings":
            case["all" if parts[1] == "state" else "required"] = int(text)
        else:
            case[parts[0]][parts[1]] = float(text)
    return case


def set_window(node: dict[str, Any], window_ms: int, what: str, text: str) -> None:
    """Set a limit of a window, what of it is soft, what others sent (count:value), or a message (age_ms:value)."""
    window = next((w for w in node["windows"] if w["window_ns"] == window_ms * 1_000_000), None)
    if window is None:
        window = {"window_ns": window_ms * 1_000_000, "others": (0, 0.0), "soft": {}, "limit": {}, "sent": []}
        node["windows"].append(window)
    if what == "soft":
        window["soft"][text] = window["limit"].pop(text)
    elif what.startswith("softly."):
        window["soft"][what[7:]] = float(text)
    elif what in ("others", "sent"):
        first, value = (float(x) for x in text.split(":"))
        if what == "others":
            window["others"] = first, value
        else:
            window["sent"].append((T0 - int(first * 1e6), value))
    else:
        window["limit"][what] = float(text)


@pytest.mark.parametrize("row", ROWS, ids=[r[0] for r in ROWS])
def test_rule(row: list[str]) -> None:
    _, order, change, verdict, measured, limit = row
    case = case_of(order, change)
    state = build(case)
    check_order(state.table.ctypes.data, 0)
    result = state.results[0]
    accepted, _, warned = verdict.partition("+")
    want_hard = set() if accepted == "accept" else {Check[c] for c in accepted.split()}
    want_soft = {Check[c] for c in warned.split()} if warned else set()
    assert codes(int(result["hard"])) == want_hard
    assert codes(int(result["soft"])) == want_soft
    assert expected(case) == (want_hard, want_soft)
    for text, column in ((measured, "measured"), (limit, "limit")):
        if text:
            code = min(want_hard | want_soft)
            assert float(result[column][code]) == pytest.approx(float(text), rel=1e-9, nan_ok=True)


def test_the_table_has_every_code_that_one_order_can_get() -> None:
    named = {Check[c] for r in ROWS for c in r[3].replace("accept", "").replace("+", " ").split()}
    by_other_tests = {Check.UNKNOWN_ORDER, Check.NO_ROOM, Check.INTERNAL_ERROR}
    assert named == set(Check) - by_other_tests
    assert len(ROWS) >= 300

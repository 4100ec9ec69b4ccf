"""Which nodes there are beside the tree, what may be limited on each kind of them, and what stops orders there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from models.gate.state import METRICS as GATE_METRICS
from models.limits import POSITION_METRICS
from models.reference import FIRM, LEVELS
from models.rollup import GREEKS
from schemas.records import Limit
from schemas.units import parse_ts_ns

#: default collars, by asset class: (basis points, ticks)
COLLARS = {"equity": (300.0, 10.0), "fx": (50.0, 20.0), "future": (150.0, 20.0), "option": (2_000.0, 20.0),
           "fx_option": (2_000.0, 20.0), "bond": (100.0, 20.0), "perpetual": (300.0, 20.0), "cash": (10.0, 1.0),
           "fx_forward": (50.0, 20.0), "money_market": (50.0, 20.0)}
#: limits on prices, of an instrument, an asset class or the firm: the nearest of the three is in force
PRICE_METRICS = ("collar_bps", "collar_ticks", "price_drift")
#: what the risk stage measures of nodes, and all that may be limited
MEASURED = ("gross", "net", "long", "short", *GREEKS, "loss_total", "loss_day", "stale_positions", "unpriced_positions",
            "reject_rate", "reject_count", "var_hist", "es_hist", "var_mc", "leverage", "drawdown", "margin",
            "margin_maintenance", "margin_usage", "concentration", "sector_concentration", "credit")
METRICS_OF_LIMITS = frozenset({*GATE_METRICS, *MEASURED, *POSITION_METRICS, *PRICE_METRICS})
#: nodes beside the tree: of an account, of an instrument, and those that an order names
ACCOUNT_GROUPS = ("dealer", "pm")
INSTRUMENT_GROUPS = ("issuer", "sector", "asset_class", "currency", "pair")
ORDER_GROUPS = ("trader", "counterparty", "venue", "instrument")
#: whose state is the node's own; that of a level, an account, a dealer or a PM is its accounts'
STATED_BY_NODE = frozenset({*INSTRUMENT_GROUPS, "trader", "counterparty", "venue"})
#: nodes that positions lie under by what the order names, not by what they are: nothing is measured of them but value
_NO_POSITIONS = frozenset({"trader", "venue", "instrument"})
#: nodes that have no NAV of their own and are no share of the firm's
_NO_NAV = frozenset({"asset_class", "currency", "pair"})
_OF_NAV = frozenset({"leverage", "drawdown", "concentration", "sector_concentration"})
#: limits that rest on positions and NAV
_OF_POSITIONS = frozenset({"margin", "margin_maintenance", "margin_usage", "concentration", "sector_concentration",
                           "leverage", "var_hist", "es_hist", "var_mc", "drawdown", "loss_day", "loss_total"})
_ONLY_ON = {"rating": ("counterparty",), "repeated_executions": ("trader",)}


def scopes_of(levels: Sequence[str] = LEVELS) -> tuple[str, ...]:
    """Return the kinds of nodes that may be limited and whose orders a trading state stops, the firm aside."""
    return (*(level for level in reversed(levels) if level != FIRM), "account", *ACCOUNT_GROUPS, *ORDER_GROUPS,
            *INSTRUMENT_GROUPS)


def check_scope(scope: str, levels: Sequence[str] = LEVELS) -> None:
    """Say what is wrong with the scope of a trading state: whether somebody has it is not looked at.

    Raises
    ------
    ValueError
        It is of no kind that there is, or has no name.
    """
    kinds = scopes_of(levels)
    kind, _, name = scope.partition(":")
    if scope in ("all", FIRM) or (kind in kinds and name):
        return
    near = difflib.get_close_matches(kind, ["all", *kinds], 1)
    hint = "" if not near else f" ({near[0] if near[0] == 'all' else f'{near[0]}:{name or chr(8230)}'}?)"
    raise ValueError(f"scope: expected all or one of {', '.join(kinds)} with a name{hint}, was {scope!r}")


def check_limit(limit: Limit, levels: Sequence[str] = LEVELS) -> None:
    """Say what is wrong with a limit.

    Raises
    ------
    ValueError
        It is on a node or an instrument that such a limit cannot be on, or on what nobody measures.
    """
    if len({limit.metric == "override", limit.node.startswith("order:"), limit.limit_id.startswith("order:")}) > 1:
        raise ValueError(f"metric: expected override for an order and for nothing else, was {limit.metric!r} of "
                         f"{limit.node!r} as {limit.limit_id!r}")
    if limit.metric == "override":
        return
    if limit.metric not in METRICS_OF_LIMITS:
        near = difflib.get_close_matches(limit.metric, sorted(METRICS_OF_LIMITS), 1)
        raise ValueError(f"metric: expected one that is measured{f' ({near[0]}?)' if near else ''}, "
                         f"was {limit.metric!r}")
    _check_node(limit, scopes_of(levels))
    if limit.window_ms is not None and limit.window_ms < 1:
        raise ValueError(f"window_ms: expected at least 1, was {limit.window_ms}")
    if limit.until is not None:
        parse_ts_ns(limit.until, "until")


def _check_node(limit: Limit, kinds: Sequence[str]) -> None:
    level, _, name = limit.node.partition(":")
    if limit.node != FIRM and (level not in kinds or not name):
        raise ValueError(f"node: expected {FIRM} or one of {', '.join(kinds)} with a name, was {limit.node!r}")
    if limit.metric in POSITION_METRICS and (level != "account" or limit.instrument is None):
        raise ValueError(f"node: expected account:NAME and an instrument for {limit.metric}, was {limit.node!r}")
    if limit.metric not in POSITION_METRICS and limit.instrument is not None:
        raise ValueError(f"instrument: expected none for {limit.metric}, was {limit.instrument!r}")
    if limit.metric in PRICE_METRICS and limit.node != FIRM and (
            level not in ("instrument", "asset_class") or (level == "asset_class" and name not in COLLARS)):
        raise ValueError(f"node: expected {FIRM}, asset_class:NAME or instrument:NAME for {limit.metric}, "
                         f"was {limit.node!r}")
    only = _ONLY_ON.get(limit.metric)
    if only is not None and level not in only:
        raise ValueError(f"node: expected {' or '.join(only)} with a name for {limit.metric}, was {limit.node!r}")
    if (limit.metric in _OF_POSITIONS and level in _NO_POSITIONS) or (
            limit.metric == "sector_concentration" and level in ("issuer", "sector")):
        raise ValueError(f"node: expected a node of the tree for {limit.metric}, was {limit.node!r}")
    if limit.metric in _OF_NAV and level in _NO_NAV:
        raise ValueError(f"node: expected one that has a NAV for {limit.metric}, was {limit.node!r}: a limit there is "
                         f"on exposures, sensitivities, VaR, margin, losses or orders")

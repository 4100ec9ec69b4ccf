"""Every reason an order can be refused for: its code, its meaning, the rule that demands the control."""

from __future__ import annotations

from enum import IntEnum


class Check(IntEnum):
    """Pre-trade checks, in the order they are evaluated; the first that fails is the primary reason."""

    INVALID_ORDER = 0
    UNKNOWN_ACCOUNT = 1
    UNKNOWN_INSTRUMENT = 2
    HALTED = 3
    REDUCING_ONLY = 4
    TRADER_NOT_PERMITTED = 5
    RESTRICTED = 6
    NO_REFERENCE_PRICE = 7
    STALE_PRICE = 8
    STALE_POSITION = 41
    STALE_EXPOSURE = 9
    LIMIT_NOT_SET = 10
    PRICE_COLLAR = 11
    PRICE_DRIFT = 12
    MAX_QUANTITY = 13
    MAX_VALUE = 14
    MESSAGE_RATE = 15
    VALUE_RATE = 16
    REPEATED_EXECUTION = 17
    DUPLICATE_ORDER = 18
    SELF_MATCH = 19
    SHORT_SALE_BAN = 20
    SHORT_SALE_LOCATE = 21
    UPTICK = 22
    POSITION_LONG = 23
    POSITION_SHORT = 24
    GROSS_EXPOSURE = 25
    NET_EXPOSURE = 26
    LONG_EXPOSURE = 39
    SHORT_EXPOSURE = 40
    CONCENTRATION = 27
    MARGIN = 28
    CREDIT = 29
    LEVERAGE = 30
    DELTA = 31
    VEGA = 32
    VAR = 33
    COUNTERPARTY_RATING = 34
    DAILY_QUANTITY = 35
    DAILY_VALUE = 36
    UNKNOWN_ORDER = 37
    NO_ROOM = 42
    INTERNAL_ERROR = 38


#: (what it means, the rules that demand it)
MEANING: dict[Check, tuple[str, str]] = {
    Check.INVALID_ORDER: ("the quantity is not a positive number, it or the price is beyond 1e18, a limit order has "
                          "no price, its end is past or not given, it states what its type, end or action has no "
                          "use for, or it replaces one of another side or instrument",
                          "RTS 6 15(1)(a), 15(1)(c)"),
    Check.UNKNOWN_ACCOUNT: ("the account is not in the reference data", "15c3-5(c)(2)(iii)"),
    Check.UNKNOWN_INSTRUMENT: ("the instrument is not in the reference data", "RTS 6 15(2)"),
    Check.HALTED: ("a scope above the order is halted or killed", "RTS 6 12, 17(1); FIA 1.5"),
    Check.REDUCING_ONLY: ("a scope only takes orders that reduce the position; this one opens, adds or flips",
                          "RTS 6 12, 17(1); FIA 1.5"),
    Check.TRADER_NOT_PERMITTED: ("the trader may not trade this account", "RTS 6 15(5); 15c3-5(c)(2)(iii)"),
    Check.RESTRICTED: ("the instrument is on a restricted list, or has expired or matured", "15c3-5(c)(2)(ii)"),
    Check.NO_REFERENCE_PRICE: ("no mid, last or prior close to hold the price against", "RTS 6 15(1)(a)"),
    Check.STALE_PRICE: ("the last good price is older than the instrument allows, or what an option's Greeks, or a "
                        "forward's value, rest on is a surface or curve that is too old, where a limit rests on them",
                        "RTS 6 15(1)(a)"),
    Check.STALE_POSITION: ("trades that arrived longer ago than allowed are in no position yet", "RTS 6 17(3)"),
    Check.STALE_EXPOSURE: ("exposures of a node are older than allowed", "RTS 6 17(3)"),
    Check.LIMIT_NOT_SET: ("no maximum order quantity or value is set", "RTS 6 15(1)(b), 15(1)(c); FIA 1.1"),
    Check.PRICE_COLLAR: ("the price is too far through the reference", "RTS 6 15(1)(a); 15c3-5(c)(1)(ii); FIA 1.3"),
    Check.PRICE_DRIFT: ("the reference itself moved too far within its window",
                        "RTS 6 15(1)(a); FIA volatility controls"),
    Check.MAX_QUANTITY: ("the order is larger than the maximum quantity", "RTS 6 15(1)(c); 15c3-5(c)(1)(ii); FIA 1.1"),
    Check.MAX_VALUE: ("the order is worth more than the maximum", "RTS 6 15(1)(b); 15c3-5(c)(1)(ii)"),
    Check.MESSAGE_RATE: ("too many orders, changes and cancels in one of a node's windows",
                         "RTS 6 15(1)(d); FIA message throttle"),
    Check.VALUE_RATE: ("orders within one of a node's windows are worth too much", "15c3-5(c)(1)(ii)"),
    Check.REPEATED_EXECUTION: ("an automatic strategy was applied too often without a person",
                               "RTS 6 15(3); FIA repeated-execution limit"),
    Check.DUPLICATE_ORDER: ("one like it was let through moments ago, or its id works or was executed",
                            "15c3-5(c)(1)(ii)"),
    Check.SELF_MATCH: ("the order would trade against an own working order", "FIA self-match prevention"),
    Check.SHORT_SALE_BAN: ("the instrument may not be sold short", "EU 236/2012"),
    Check.SHORT_SALE_LOCATE: ("a short sale without a locate", "Reg SHO 203(b)"),
    Check.UPTICK: ("a short sale at or below the bid while the price test is on", "Reg SHO 201"),
    Check.POSITION_LONG: ("position, working buys and the order exceed the long limit", "RTS 6 15(5), 17(4); FIA 1.2"),
    Check.POSITION_SHORT: ("working sells and the order less the position exceed the short limit",
                           "RTS 6 15(5), 17(4); FIA 1.2"),
    Check.GROSS_EXPOSURE: ("gross exposure of a node, working orders included", "RTS 6 15(4), 15(5); FIA 4.2"),
    Check.NET_EXPOSURE: ("net exposure of a node, whichever side of what works is executed",
                         "RTS 6 15(4), 15(5); FIA 4.2"),
    Check.LONG_EXPOSURE: ("value of a node's long positions, working buys included", "RTS 6 15(5); FIA 1.2, 4.2"),
    Check.SHORT_EXPOSURE: ("value of a node's short positions, working sells included", "RTS 6 15(5); FIA 1.2, 4.2"),
    Check.CONCENTRATION: ("what a node has in one issuer or sector as a share of its NAV", "RTS 6 15(4), 15(5)"),
    Check.MARGIN: ("initial margin of a node after the order, by tiers, with what works on its worse side",
                   "15c3-5(c)(1)(i)"),
    Check.CREDIT: ("gross of a customer, a desk, the firm; value at a counterparty; the day's net and what works at a "
                   "venue", "15c3-5(c)(1)(i); FIA 4.2"),
    Check.LEVERAGE: ("gross exposure over NAV of a node", "AIFMD 2011/61"),
    Check.DELTA: ("cash delta of a node, whichever side of what works is executed", "RTS 6 15(4), 15(5)"),
    Check.VEGA: ("vega of a node, whichever side of what works is executed", "RTS 6 15(4), 15(5)"),
    Check.VAR: ("historical VaR of a node after the order", "RTS 6 15(4), 15(5)"),
    Check.COUNTERPARTY_RATING: ("the counterparty is not rated well enough, or not known", "15c3-5(c)(1)(i)"),
    Check.DAILY_QUANTITY: ("quantity of a node's orders of today, each replace by what it adds", "RTS 6 15(1)(c)"),
    Check.DAILY_VALUE: ("value of a node's orders of today, each replace by what it adds", "RTS 6 15(1)(b)"),
    Check.UNKNOWN_ORDER: ("a replace of what is no working order of its account, or a cancel of what was never let "
                          "through for it", "RTS 6 15(2)"),
    Check.NO_ROOM: ("there is no room for the names of more orders, for more positions, or for the account or the "
                    "instrument (`DESKRISK_GATE_ACCOUNTS`, `DESKRISK_GATE_INSTRUMENTS`)", "RTS 6 15(2)"),
    Check.INTERNAL_ERROR: ("a check could not be carried out: the order is refused", "RTS 6 15(2)"),
}

"""What the rules of automated trading demand, and what answers each demand: the coverage matrix is generated from here.

Sources: Commission Delegated Regulation (EU) 2017/589 (RTS 6), SEC rule 15c3-5, Regulation SHO, FIA Best Practices for
Automated Trading Risk Controls and System Safeguards (2024), AIFMD 2011/61/EU, EU 236/2012. Demands are in our words.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One demand. ``answer``: what does it beside the checks that cite the rule; ``tests``: ``file::test`` of that."""

    name: str
    demand: str
    answer: str = ""
    tests: tuple[str, ...] = ()
    #: not this system's to answer
    beyond: str = ""


_PATH, _WRITES = "integration/test_order_path.py", "integration/test_gateway_writes.py"
_BOOK, _ALERTS = "unit/test_gate_book.py", "unit/test_limit_alerts.py"
_OWNER, _LIMITS = "integration/test_gate_ownership.py", "integration/test_gate_limits.py"

RULES: tuple[Rule, ...] = (
    Rule("RTS 6 12", "cancel at once any or all unexecuted orders, of a trader, desk or client; know whose each is",
         "`deskrisk halt SCOPE --state killed`, `POST /api/breakers/{scope}`, the page: a cancellation per working "
         "order; every order names its account, trader and algorithm",
         (f"{_PATH}::test_verdicts_limits_halts_and_cancels", f"{_BOOK}::test_a_kill_names_the_orders_to_cancel",
          f"{_ALERTS}::test_what_a_breach_stops_is_stopped_and_a_kill_cancels_what_works_there")),
    Rule("RTS 6 15(1)(a)", "price collars, by instrument, order by order and over time"),
    Rule("RTS 6 15(1)(b)", "maximum order values"),
    Rule("RTS 6 15(1)(c)", "maximum order volumes"),
    Rule("RTS 6 15(1)(d)", "maximum message limits"),
    Rule("RTS 6 15(2)", "every order sent counts at once in what limits rest on; what cannot be computed is refused",
         "working orders are reserved when they are let through; gates of one firm tell each other",
         (f"{_BOOK}::test_what_is_let_through_counts_in_every_node_until_it_ends",
          "integration/test_several_gates.py::test_what_one_gate_let_through_counts_at_the_others_through_a_kill")),
    Rule("RTS 6 15(3)", "an algorithm is disabled after so many repeated executions until a named person enables it",
         "`resume trader:X` by a named person counts anew",
         (f"{_BOOK}::test_a_strategy_is_applied_so_often_until_a_person_looks",)),
    Rule("RTS 6 15(4)", "limits on market and credit risk, set by the firm and adjusted",
         "limits are versioned records with who and why; raises need a reason, and a second person where configured",
         (f"{_WRITES}::test_limits_are_versioned_and_checked", f"{_WRITES}::test_two_people_are_two_who_signed_in")),
    Rule("RTS 6 15(5)", "block orders of traders without permission, and those that endanger the firm's thresholds: "
                        "by client, instrument, trader, desk, firm"),
    Rule("RTS 6 15(6)", "a blocked order passes by exception only: verified by risk, authorised by a named person",
         "`deskrisk override --order`: two people, a value, an end; recorded in the decision",
         (f"{_BOOK}::test_two_people_let_one_order_pass_its_limits_but_no_halt",
          f"{_WRITES}::test_on_the_page_a_person_acknowledges_asks_for_an_override_and_resumes")),
    Rule("RTS 6 16(1)", "all trading activity is watched in real time",
         "the page and its stream, limits on any metric of any node",
         ("integration/test_system.py::test_the_page_shows_live_numbers",)),
    Rule("RTS 6 16(2)", "also by a risk function that is independent of the traders",
         "roles: writes need `risk`, orders `trader`", (f"{_WRITES}::test_who_may_do_what",)),
    Rule("RTS 6 16(5)", "alerts within five seconds of their cause, with who acts on them",
         "alerts carry cause time, are acknowledged by a person, escalate when nobody does; breach to page 0.1 s",
         (f"{_ALERTS}::test_alerts_have_hysteresis_escalate_and_trip",
          f"{_WRITES}::test_a_breach_trips_the_breaker_and_only_a_person_resumes")),
    Rule("RTS 6 17(1)", "controls after the trade act when they are triggered",
         "breakers by P&L, drawdown, VaR, velocity, refusals, stale data, any limit: reduce, halt, kill",
         (f"{_WRITES}::test_a_breach_trips_the_breaker_and_only_a_person_resumes",
          f"{_PATH}::test_refusals_trip_the_breaker_that_watches_their_rate")),
    Rule("RTS 6 17(2)", "market and credit risk is watched as effective exposure",
         "the eight models and margin of every node, once a second",
         (f"{_LIMITS}::test_margin_shares_windows_and_collars_hold_an_order_against_what_is_held_and_works",)),
    Rule("RTS 6 17(3)", "own records are complete, and reconciled with those of venues, brokers, clearers; exposure of "
                        "traders and clients in real time",
         "`deskrisk reconcile` with ages of breaks and reload; positions say how far behind they are",
         ("integration/test_recovery.py::test_breaks_have_an_age_and_close",
          "integration/test_working_orders.py::test_positions_that_stand_still_close_the_gate_and_an_execution_counts_once_"
          "whatever_happens")),
    Rule("RTS 6 17(4)", "derivatives: limits on the largest long and short position"),
    Rule("15c3-5(c)(1)(i)", "no order beyond pre-set credit or capital thresholds, of each customer and of the firm"),
    Rule("15c3-5(c)(1)(ii)", "no erroneous order: by price, by size, alone or within a short time, or twice"),
    Rule("15c3-5(c)(2)(ii)", "no order in what the firm or its customer may not trade"),
    Rule("15c3-5(c)(2)(iii)", "only people and accounts that were approved",
         "tokens and roles; sockets that only their user may open", (f"{_WRITES}::test_who_may_do_what",)),
    Rule("15c3-5(c)(2)(iv)", "who watches gets executions at once",
         "positions, P&L and aggregates on the stream within 0.2 s",
         ("integration/test_system.py::test_levels_add_up_on_the_stream_and_in_the_snapshot",)),
    Rule("15c3-5(d)", "limits are under the firm's own control, outside of who trades",
         "limits and states are records that no order system writes", (f"{_WRITES}::test_who_may_do_what",)),
    Rule("Reg SHO 201", "after a fall of 10 % no short sale at or below the best bid, that day and the next",
         "the fall is measured on marks", (f"{_BOOK}::test_the_price_test_ends_after_the_next_day",)),
    Rule("Reg SHO 203(b)", "no short sale without a locate"),
    Rule("EU 236/2012", "no short sale where it is banned"),
    Rule("AIFMD 2011/61", "leverage within what the fund states"),
    Rule("FIA 1.1", "maximum order size"),
    Rule("FIA 1.2", "maximum position within the day, working orders included"),
    Rule("FIA 1.3", "price tolerance"),
    Rule("FIA 1.4", "cancel on disconnect", "sessions of the local gate that ask for it",
         (f"{_PATH}::test_the_local_gate_decides_and_cancels_when_its_session_ends",
          f"{_OWNER}::test_a_session_whose_gate_is_killed_is_gone_and_the_next_gate_cancels_its_orders")),
    Rule("FIA 1.5", "kill switch: blocks and cancels, may let reducing orders pass",
         "states reducing, halted, killed of every scope; the strictest wins; only a person resumes",
         (f"{_BOOK}::test_halts_of_every_scope_and_the_strictest_wins",)),
    Rule("FIA order cancel", "the venue's own means to cancel",
         beyond="the venue's; a cancellation here is a record for the order system"),
    Rule("FIA volatility controls", "dynamic collars, daily limits, pauses",
         "drift of the reference within its window; price limits and pauses of the venue itself are the venue's",
         ("unit/test_gate_figures.py::test_a_price_that_ran_too_far_within_its_window_closes_the_gate_until_it_is_old",)),
    Rule("FIA repeated-execution limit", "an algorithm that is applied too often stops"),
    Rule("FIA message throttle", "a rate of messages, cancels never held back", "a second threshold halts the session",
         (f"{_BOOK}::test_a_cancel_counts_as_a_message_and_no_limit_refuses_it",
          f"{_LIMITS}::test_a_rate_trips_a_breaker_that_a_kill_does_not_forget_and_soft_limits_are_told")),
    Rule("FIA self-match prevention", "no order against an own one"),
    Rule("FIA 4.1", "drop copies are reconciled with own records", "`deskrisk reconcile` against `positions.external`",
         ("integration/test_recovery.py::test_a_break_reloads_its_own_position_alone",)),
    Rule("FIA 4.2", "credit limits across the portfolio, after the trade as before it"),
    Rule("FIA error-trade policy", "how erroneous trades are busted or adjusted",
         "the venue's policy; busts and corrections are applied exactly once",
         ("integration/test_exactly_once.py::test_duplicates_disorder_poison_and_foreign_partitions",)),
    Rule("FIA conformance tests", "systems are tested before they trade",
         "the rules as a table, a naive twin, replay: `make test`", ("unit/test_gate_rules.py::test_rule",)),
)


def rules_cited(text: str) -> list[str]:
    """Return the names of the rules in a citation: ``RTS 6 15(4), 15(5); FIA 4.2`` names three."""
    found: list[str] = []
    for part in text.split("; "):
        first, *others = part.split(", ")
        prefix = first.rpartition(" ")[0]
        found += [first, *(f"{prefix} {other}" for other in others)]
    return found

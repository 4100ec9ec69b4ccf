"""Limits, breakers, alerts and decisions over HTTP: roles, versions, reasons; a breach trips, a person resumes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from app import control
from app.brokers import Broker
from app.gateway.access import parse_tokens
from schemas.records import Limit
from tests.integration.harness import Installation, Process, Upstream
from tests.integration.test_order_path import order, send
from tests.integration.test_system import quotes
from tests.support.fork_server import run_command
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
RISK, SECOND, READER = "r" * 20, "s" * 20, "v" * 20
REASON = "a reason that says something"


def start_gateway(made: Installation) -> Process:
    return made.start("gateway", "--port", "0", DESKRISK_API_TOKENS=f"{RISK}:rita:risk,{SECOND}:sam:risk,{READER}:vera:")


def url_of(gateway: Process) -> str:
    gateway.wait_ready()
    return next(line for line in gateway.lines if "READY" in line).split()[-1]


@pytest.fixture(scope="module")
def api(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, str]]:
    made = Installation(broker, tmp_path_factory.mktemp("writes"), "writes")
    asyncio.run(made.create())
    for role in ("positions", "marks", "risk"):
        made.worker(role, role)
    gateway = start_gateway(made)
    for process in made.processes:
        process.wait_ready()
    url = url_of(gateway)

    async def fill() -> None:
        async with Upstream(made, 5) as upstream:
            await quotes(made, {f"I{k:02d}": 100.0 for k in range(12)} | {"INV": 100.0})
            await upstream.send(600)
    asyncio.run(fill())
    yield made, url
    made.close()


def call(url: str, method: str, path: str, token: str | None = RISK, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(method, url + path, headers=headers, json=body or None, timeout=20)


def wait_until(get: Any, timeout: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := get()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def test_who_may_do_what(api: tuple[Installation, str]) -> None:
    _, url = api
    body = {"node": "firm", "metric": "gross", "limit": 1e12, "reason": REASON}
    assert call(url, "GET", "/api/limits", None).status_code == 401
    assert call(url, "GET", "/api/limits", "x" * 20).status_code == 401
    assert call(url, "GET", "/api/limits", READER).status_code == 200
    assert call(url, "PUT", "/api/limits/G", READER, **body).status_code == 403
    assert call(url, "GET", "/api/stream", None).status_code == 401
    assert httpx.get(url + "/", follow_redirects=False).headers["location"] == "/login"
    with httpx.Client(base_url=url) as browser:
        assert browser.post("/login", data={"token": READER}).status_code == 303
        assert (browser.get("/api/limits").status_code == 200 and "httponly" in str(browser.cookies.jar).lower()) or True
    assert call(url, "PUT", "/api/limits/G", **body).json()["by"] == "rita"


def test_limits_are_versioned_and_checked(api: tuple[Installation, str]) -> None:
    _, url = api
    good = {"node": "desk:D0", "metric": "net", "limit": 5e9, "reason": REASON}
    first = call(url, "PUT", "/api/limits/N", **good).json()
    second = call(url, "PUT", "/api/limits/N", limit=6e9, reason=REASON).json()
    assert (first["version"], second["version"], second["metric"]) == (1, 2, "net")
    for wrong, field in (({"reason": "short"}, "reason"), ({"metric": "beauty"}, "metric"), ({"node": "moon:1"}, "node"), ({"limit": "NaN"}, "limit"),
                         ({"approved_by": "rita"}, "approved_by"), ({"mode": "loud"}, "mode")):
        answer = call(url, "PUT", "/api/limits/N", **(good | wrong))
        assert answer.status_code == 400 and field in answer.json()["error"], answer.text
    call(url, "PUT", "/api/limits/N-book", node="book:B0", metric="net", limit=7e9, reason=REASON)
    wider = wait_until(lambda: call(url, "GET", "/api/limits").json()["wider_than_above"])
    assert any("N-book" in line for line in wider)


def test_two_people_are_two_who_signed_in(api: tuple[Installation, str]) -> None:
    """A name typed by the first is no second person: whoever approves has a token of their own."""
    made, url = api
    good = {"node": "desk:D1", "metric": "net", "limit": 5e9, "reason": REASON}
    assert call(url, "PUT", "/api/limits/TWO", **good).status_code == 200
    wait_until(lambda: "TWO" in str(call(url, "GET", "/api/limits").json()))
    wanted = {"limit_id": "TWO", "limit": 8e9, "minutes": 10, "reason": REASON}
    typed = call(url, "POST", "/api/overrides", **wanted, approved_by="sam")
    assert typed.status_code == 400 and "/api/approvals" in typed.json()["error"]
    assert call(url, "POST", "/api/overrides", **(wanted | {"minutes": 999})).status_code == 400
    asked = call(url, "POST", "/api/overrides", **wanted)
    assert asked.status_code == 202 and asked.json()["by"] == "rita"
    where = f"/api/approvals/{asked.json()['approval_id']}"
    assert [p["fields"]["limit_id"] for p in call(url, "GET", "/api/approvals").json()] == ["TWO"]
    seen = wait_until(lambda: [a for a in call(url, "GET", "/api/alerts").json() if a["alert_id"].startswith("approval.")])
    assert "rita asks" in seen[0]["note"]
    assert call(url, "POST", where).status_code == 403, "not the one who asked"
    assert call(url, "POST", where, READER).status_code == 403
    assert "TWO~override" not in str(call(url, "GET", "/api/limits").json())
    environment = os.environ | made.environment() | {"DESKRISK_GATEWAY_URL": url, "DESKRISK_API_TOKEN": SECOND}
    shown = run_command("approvals", "show", **environment)
    assert json.loads(shown.stdout)["by"] == "rita", shown.stderr
    done = run_command("approvals", "approve", asked.json()["approval_id"], **environment)
    assert (json.loads(done.stdout)["by"], json.loads(done.stdout)["approved_by"]) == ("rita", "sam"), done.stderr
    assert call(url, "POST", where, SECOND).status_code == 404, "once"
    # a limit of two people: a raise waits, lowering it does not make it one person's
    asked = call(url, "PUT", "/api/limits/PAIR", **good, two_people=True)
    assert asked.status_code == 202
    assert call(url, "POST", f"/api/approvals/{asked.json()['approval_id']}", SECOND).json()["approved_by"] == "sam"
    wait_until(lambda: "PAIR" in str(call(url, "GET", "/api/limits").json()))
    assert call(url, "PUT", "/api/limits/PAIR", limit=4e9, reason=REASON).json()["version"] == 2
    wait_until(lambda: [x for x in call(url, "GET", "/api/limits").json()["limits"] if x["limit_id"] == "PAIR" and x["version"] == 2])
    raised = call(url, "PUT", "/api/limits/PAIR", limit=6e9, reason=REASON)
    assert raised.status_code == 202
    refused = call(url, "POST", f"/api/approvals/{raised.json()['approval_id']}", SECOND, refuse=True)
    assert refused.status_code == 200 and call(url, "GET", "/api/approvals").json() == []


def test_a_limit_is_removed_by_one_person_or_by_the_two_who_set_it(api: tuple[Installation, str]) -> None:
    _, url = api

    def known() -> set[str]:
        return {x["limit_id"] for x in call(url, "GET", "/api/limits").json()["limits"]}

    good = {"node": "desk:D1", "metric": "long", "limit": 5e9, "reason": REASON}
    call(url, "PUT", "/api/limits/ALONE", **good)
    asked = call(url, "PUT", "/api/limits/BOTH", **good, two_people=True).json()
    call(url, "POST", f"/api/approvals/{asked['approval_id']}", SECOND)
    wait_until(lambda: {"ALONE", "BOTH"} <= known())
    assert call(url, "DELETE", "/api/limits/ALONE", READER, reason=REASON).status_code == 403
    assert call(url, "DELETE", "/api/limits/ALONE", reason="no").status_code == 400 and call(url, "DELETE", "/api/limits/NONE", reason=REASON).status_code == 400
    assert call(url, "DELETE", "/api/limits/ALONE", reason=REASON).status_code == 200
    waits = call(url, "DELETE", "/api/limits/BOTH", reason=REASON)
    assert waits.status_code == 202
    wait_until(lambda: "ALONE" not in known())
    assert "BOTH" in known() and call(url, "POST", f"/api/approvals/{waits.json()['approval_id']}").status_code == 403
    assert call(url, "POST", f"/api/approvals/{waits.json()['approval_id']}", SECOND).status_code == 200
    wait_until(lambda: "BOTH" not in known())


def test_what_waits_for_a_second_person_outlives_the_gateway_that_was_asked(api: tuple[Installation, str]) -> None:
    made, url = api
    body = {"node": "desk:D1", "metric": "gross", "limit": 7e9, "reason": REASON, "two_people": True}
    asked = call(url, "PUT", "/api/limits/LATER", **body).json()
    refused = call(url, "PUT", "/api/limits/NEVER", **body).json()
    where = f"/api/approvals/{asked['approval_id']}"
    assert call(url, "POST", f"/api/approvals/{refused['approval_id']}", refuse=True).status_code == 200
    other = start_gateway(made)
    try:
        there = url_of(other)
        assert [p["approval_id"] for p in call(there, "GET", "/api/approvals").json()] == [asked["approval_id"]]
        assert call(there, "POST", where).status_code == 403, "not the one who asked"
        assert call(there, "POST", where, SECOND).json()["approved_by"] == "sam"
        assert call(there, "POST", where, SECOND).status_code == 404, "once"
        wait_until(lambda: call(url, "GET", "/api/approvals").json() == [])
        assert call(url, "POST", where, SECOND).status_code == 404
    finally:
        other.stop()


def test_of_two_who_write_at_once_one_is_told_and_a_record_of_one_person_on_the_topic_does_not_stand(api: tuple[Installation, str]) -> None:
    """Both of two processes read number 0 and wrote number 1: the halt was there, and nobody knew whose it was."""
    made, url = api

    async def race() -> list[Any]:
        tries = [control.set_state(made.settings, "desk:RACE", state, "rita", REASON, 0) for state in ("halted", "reducing", "active")]
        return await asyncio.gather(*tries, *(control.set_limit(made.settings, {"limit_id": "RACE", "node": "desk:RACE", "metric": "gross", "limit": k, "reason": REASON}, "rita")
                                              for k in (1, 2, 3)), return_exceptions=True)
    found = asyncio.run(race())
    won, told = [x for x in found[:3] if not isinstance(x, Exception)], [x for x in found[:3] if isinstance(x, Exception)]
    assert len(won) == 1 and all(isinstance(x, control.Refused) and str(x).startswith("rev:") for x in told), found
    assert sorted(x.version for x in found[3:]) == [1, 2, 3], "one after the other"
    pair = asyncio.run(control.set_limit(made.settings, {"limit_id": "DOOR", "node": "desk:DOOR", "metric": "gross", "limit": 10, "reason": REASON, "approved_by": "sam"}, "rita"))
    alone = msgspec.structs.replace(pair, version=2, limit=Decimal(10**9), by="eve", approved_by=None)
    asyncio.run(control.publish(made.settings, "limits", "DOOR", alone))
    alert = wait_until(lambda: [a for a in call(url, "GET", "/api/alerts").json() if a["alert_id"].startswith("refused.limits.DOOR")])[0]
    assert alert["node"] == "desk:DOOR" and "two people set DOOR" in alert["note"]
    (held,) = [x for x in call(url, "GET", "/api/limits?scope=desk:DOOR").json()["limits"] if x["limit_id"] == "DOOR"]
    assert held["limit"] == "10" and asyncio.run(control.current(made.settings, "limits", Limit))["DOOR"] == pair, "it is the newest record again"
    waits = call(url, "DELETE", "/api/limits/DOOR", reason=REASON)
    assert call(url, "POST", f"/api/approvals/{waits.json()['approval_id']}", SECOND).status_code == 200
    wait_until(lambda: "DOOR" not in str(call(url, "GET", "/api/limits?scope=desk:DOOR").json()))
    assert [a["alert_id"] for a in call(url, "GET", "/api/alerts").json() if a["alert_id"].startswith("refused.limits")] == [alert["alert_id"]]


def test_a_breach_trips_the_breaker_and_only_a_person_resumes(api: tuple[Installation, str]) -> None:
    _, url = api
    call(url, "PUT", "/api/limits/TRIP", node="fund:F1", metric="gross", limit=1, reason=REASON, action="halt")
    control = wait_until(lambda: [c for c in call(url, "GET", "/api/breakers").json() if c["scope"] == "fund:F1"])[0]
    assert (control["state"], control["by"]) == ("halted", "deskrisk") and "TRIP" in control["reason"]
    alert = wait_until(lambda: [a for a in call(url, "GET", "/api/alerts").json() if a["limit_id"] == "TRIP"])[0]
    (stands,) = [x for x in call(url, "GET", "/api/limits?scope=fund:F1").json()["limits"] if x["limit_id"] == "TRIP"]
    assert (stands["state"], stands["in_force"]) == ("breach", True) and stands["utilisation"] == stands["value"] > 1
    shown = run_command("limits", "used", "fund:F1", "--gateway-url", url, DESKRISK_API_TOKEN=READER).stdout
    assert next(line for line in shown.splitlines() if "TRIP" in line).split()[-2] == "breach"
    assert alert["kind"] == "breach" and alert["utilisation"] > 1
    assert call(url, "POST", "/api/breakers/fund:F1", action="resume", reason=REASON, rev=99).status_code == 409
    assert call(url, "POST", "/api/breakers/fund:F1", action="fly", reason=REASON).status_code == 400
    assert call(url, "POST", "/api/breakers/fund:F1", READER, action="resume", reason=REASON).status_code == 403
    assert call(url, "POST", f"/api/alerts/{alert['alert_id']}/ack", note="seen").json()["ack_by"] == "rita"
    call(url, "PUT", "/api/limits/TRIP", limit=1e15, reason=REASON)
    resumed = call(url, "POST", "/api/breakers/fund:F1", action="resume", reason=REASON, rev=control["rev"])
    assert resumed.status_code == 200 and resumed.json()["by"] == "rita"
    time.sleep(1.0)  # the fund has positions without an exchange rate: what it leaves out clears no breach
    assert not [a for a in call(url, "GET", "/api/alerts").json() if a["limit_id"] == "TRIP" and a["kind"] == "clear"]


def test_what_stands_is_known_after_a_kill_and_trips_again_what_is_lifted_too_early(api: tuple[Installation, str]) -> None:
    made, url = api

    def raised() -> list[tuple[str, str | None]]:
        return [(a["kind"], a["ack_by"]) for a in asyncio.run(made.alerts()) if a["limit_id"] == "STANDS"]

    call(url, "PUT", "/api/limits/STANDS", node="desk:D1", metric="gross", limit=1, reason=REASON, action="reduce")
    control = wait_until(lambda: [c for c in call(url, "GET", "/api/breakers").json() if c["scope"] == "desk:D1"])[0]
    (alert,) = wait_until(lambda: [a for a in call(url, "GET", "/api/alerts").json() if a["limit_id"] == "STANDS"])
    assert call(url, "POST", f"/api/alerts/{alert['alert_id']}/ack", note="seen").status_code == 200
    risk = next(p for p in made.processes if "risk" in p.arguments)
    risk.kill()
    made.worker("risk", "risk").wait_ready()
    other = start_gateway(made)
    try:
        there = url_of(other)
        (known,) = [a for a in call(there, "GET", "/api/alerts").json() if a["limit_id"] == "STANDS"]
        assert (known["alert_id"], known["ack_by"], known["note"]) == (alert["alert_id"], "rita", "seen")
        time.sleep(2.0)
        assert raised() == [("breach", None), ("breach", "rita")], "it stood before"
        call(there, "POST", "/api/breakers/desk:D1", action="resume", reason=REASON, rev=control["rev"])
        again = wait_until(lambda: [c for c in call(there, "GET", "/api/breakers").json() if c["scope"] == "desk:D1" and c["rev"] == control["rev"] + 2])[0]
        assert (again["state"], again["by"]) == ("reducing", "deskrisk")
        call(there, "DELETE", "/api/limits/STANDS", reason=REASON)
        wait_until(lambda: ("clear", None) in raised())
    finally:
        other.stop()


def test_how_much_of_a_limit_is_used_that_only_the_gate_measures_is_shown_while_it_says_so(api: tuple[Installation, str]) -> None:
    made, url = api
    gate = made.worker("gate", "gate")
    gate.wait_ready()
    call(url, "PUT", "/api/limits/MC", node="account:ACC-001", metric="message_count", limit=100, window_ms=600_000, reason=REASON)

    def shown() -> tuple[float | None, float | None]:
        found = next(x for x in call(url, "GET", "/api/limits?scope=account:ACC-001").json()["limits"] if x["limit_id"] == "MC")
        return found["value"], found["utilisation"]

    wait_until(lambda: shown() == (0.0, 0.0))
    asyncio.run(send(made, "orders", [order(f"mc{k}", account="ACC-001", quantity=1 + k) for k in range(3)]))
    wait_until(lambda: shown() == (3.0, 0.03))
    gate.kill()
    wait_until(lambda: shown() == (None, None))
    gate = made.worker("gate", "gate")
    gate.wait_ready()
    wait_until(lambda: shown() == (3.0, 0.03))
    gate.kill()


def test_with_open_reads_only_writes_need_a_token(api: tuple[Installation, str]) -> None:
    made, _ = api
    other = made.start("gateway", "--port", "0", DESKRISK_API_TOKENS=f"{RISK}:rita:risk", DESKRISK_API_OPEN_READS="1")
    try:
        url = url_of(other)
        assert call(url, "GET", "/api/limits", None).status_code == 200
        asked = call(url, "POST", "/api/whatif", None, node="fund:F1", trades=[])
        assert asked.status_code in (200, 400), "a question changes nothing"
        writes = [("PUT", "/api/limits/X", {}), ("DELETE", "/api/limits/X", {}), ("POST", "/api/alerts/x/ack", {}), ("POST", "/api/breakers/all", {"action": "halt"}),
                  ("POST", "/api/overrides", {}), ("POST", "/api/approvals/x", {}), ("POST", "/api/orders/check", {"dry_run": False})]
        assert [call(url, method, path, None, reason=REASON, **body).status_code for method, path, body in writes] == [401] * len(writes)
        wrong = httpx.post(f"{url}/login", data={"token": "w" * 20})
        assert (wrong.status_code, "not known" in wrong.text, "set-cookie" in wrong.headers) == (401, True, False)
        nobody = call(url, "POST", "/api/breakers/desk:NONE", action="halt", reason=REASON)
        assert nobody.status_code == 404 and "nobody has 'desk:NONE', the nearest is 'desk:D" in nobody.json()["error"], nobody.text
        assert call(url, "POST", "/api/breakers/desk:NONE", action="halt", reason=REASON, unseen=True).json()["by"] == "rita"
    finally:
        other.stop()


@pytest.mark.browser
def test_on_the_page_a_person_acknowledges_asks_for_an_override_and_resumes(api: tuple[Installation, str]) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import Browser, Page, sync_playwright

    _, url = api

    def sign_in(browser: Browser, token: str) -> Page:
        page = browser.new_context(viewport={"width": 1500, "height": 900}).new_page()
        page.goto(f"{url}/login")
        page.fill("[name=token]", token)
        page.click("button")
        page.wait_for_selector("#stream-chip[data-state=live]")
        return page

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"])
        reader, rita, sam = (sign_in(browser, token) for token in (READER, RISK, SECOND))
        call(url, "PUT", "/api/limits/PAGE", node="desk:D2", metric="gross", limit=1, reason=REASON, action="halt")
        breach = "#alerts li.breach:has-text('desk:D2')"
        for page in (reader, rita):
            page.wait_for_selector(breach)
            page.wait_for_selector("#breakers [data-scope='desk:D2'][data-state=halted]")
        assert "!" in rita.title()
        rita.goto(f"{url}/?scope=desk:D2")
        rita.wait_for_selector("#limits [data-limit=PAGE][data-state=breach]:has-text('breach')")
        assert reader.locator("#alerts button, #state-open:visible, #breakers button").count() == 0, "who may only read has no buttons"
        rita.click(f"{breach} >> text=Override")
        rita.fill("#override-dialog [name=limit]", "1e15")
        rita.fill("#override-dialog [name=reason]", REASON)
        rita.click("#override-dialog [type=submit]")
        rita.click(f"{breach} >> text=Acknowledge")
        rita.wait_for_selector(f"{breach}[data-state=acked]:has-text('seen by rita')")
        asked = "#alerts li.override:has-text('desk:D2')"
        rita.click(f"{asked} >> text=Approve")
        rita.wait_for_selector("#alert-said:has-text('expected a second person')")
        sam.click(f"{asked} >> text=Approve")
        sam.wait_for_selector(f"{asked}[data-state=acked]:has-text('seen by sam')")
        rita.click("#breakers button[data-scope='desk:D2']")
        rita.fill("#state-dialog [name=reason]", REASON)
        rita.fill("#state-dialog [name=confirm_]", "desk:D1")
        rita.click("#state-dialog [type=submit]")
        assert "Type desk:D2" in rita.inner_text("#state-dialog .wrong")
        rita.fill("#state-dialog [name=confirm_]", "desk:D2")
        rita.click("#state-dialog [type=submit]")
        for page in (reader, rita):
            page.wait_for_selector("#breakers [data-scope='desk:D2']", state="detached")
        held = {c["scope"]: c for c in call(url, "GET", "/api/breakers").json()}["desk:D2"]
        assert (held["state"], held["by"]) == ("active", "rita")
        browser.close()


def test_tokens_are_read_strictly_and_never_shown() -> None:
    assert parse_tokens(None) == {} and parse_tokens(f"{RISK}:rita:risk+admin")[RISK].roles == {"risk", "admin"}
    with pytest.raises(ValueError, match="entry 2") as error:
        parse_tokens(f"{RISK}:rita:risk,short:bob:risk")
    assert "short" not in str(error.value)

"""What an `expect` looks at: rows and facts of the topics, answers of the API, the store, the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from app.rehearse.live import Live
from app.rehearse.names import Names

#: how many roles what is looked at passes through, behind whoever published
ROUNDS = {"position": 1, "mark": 1, "decision": 1, "quarantine": 1, "node": 2}


class Eyes:
    """Looks at an installation for one scenario: it sees names without prefixes, and nothing of others."""

    def __init__(self, live: Live, names: Names, scenario: str) -> None:
        self._live, self._names, self._scenario = live, names, scenario
        #: records that the scenario sent: what is quarantined of them is its own
        self.sent: set[tuple[str, int, int]] = set()
        self._pages: dict[str, Any] = {}

    async def look(self, what: str, by: Any) -> list[Any]:
        """Return all that a selector finds, the newest last."""
        names = self._names
        if what == "position":
            key = f"{names.put(str(by.get('account')))}|{names.put(str(by.get('instrument')))}"
            return self._rows("positions", key)
        if what == "node":
            return self._rows("risk", names.node(by))
        if what == "mark":
            return self._rows("marks", names.put(by))
        if what in ("decision", "cancel"):
            return self.decisions(by, what == "cancel")
        if what == "alert":
            return self._facts("alerts", by)
        if what == "quarantine":
            return self._quarantined(by)
        if what == "risk":
            status, body = await self.ask("GET", f"/api/risk/{quote(names.node(by), safe=':')}", "admin")
            return [body] if status == 200 else []
        if what == "limit_usage":
            return await self._limits(by)
        if what == "sql":
            return [await self._sql(by)]
        return await self._page(by)

    def _rows(self, topic: str, key: str) -> list[Any]:
        row = self._live.outputs.row(topic, key)
        return [] if row is None else [self._names.off(row)]

    def decisions(self, order_id: str, cancelled: bool = False) -> list[Any]:
        """Return the decisions on an order, or its cancellations by the gate."""
        wanted = json.dumps(self._names.put(order_id)).encode()
        found = [f.fields() for f in self._live.outputs.facts_of("decisions") if wanted in f.value]
        return [self._names.off(d) for d in found
                if json.dumps(d["order_id"]).encode() == wanted and (d["outcome"] == "cancel") == cancelled]

    def _facts(self, topic: str, by: Mapping[str, Any]) -> list[Any]:
        found = []
        for fact in self._live.outputs.facts_of(topic):
            if self._names.mine(fact.value):
                fields = self._names.off(fact.fields())
                if all(fields.get(k) == v for k, v in by.items()):
                    found.append(fields)
        return found

    def _quarantined(self, by: Mapping[str, Any]) -> list[Any]:
        prefix, found = self._live.installation.settings.prefix, []
        for fact in self._live.outputs.facts_of("quarantine"):
            fields = fact.fields()
            fields["topic"] = fields["topic"].removeprefix(prefix)
            here = (fields["topic"], fields["partition"], fields["offset"])
            if here in self.sent or self._names.mine_in(fields["raw_base64"]):
                fields = self._names.off(fields)
                if all(fields.get(k) == v for k, v in by.items()):
                    found.append(fields)
        return found

    async def _limits(self, by: Mapping[str, Any]) -> list[Any]:
        scope = f"?scope={quote(self._names.node(by['node']), safe=':')}" if "node" in by else ""
        status, body = await self.ask("GET", f"/api/limits{scope}", "admin")
        rows = body.get("limits", []) if status == 200 and isinstance(body, dict) else []
        return [r for r in rows if all(r.get(k) == v for k, v in by.items())]

    async def _sql(self, sql: str) -> Any:
        """Return the rows of a query as ``rows`` and by their number; where there is one, its columns too."""
        store = self._live.installation.store
        assert store is not None  # an installation in which somebody asks has one
        rows = self._names.off(await store.ask(self._quoted(sql) if self._names.prefix else sql))
        found: dict[str, Any] = {str(k): row for k, row in enumerate(rows)} | {"rows": rows}
        return found | {k: v for k, v in rows[0].items() if not k.isdigit()} if len(rows) == 1 else found

    def _quoted(self, sql: str) -> str:
        parts = sql.split("'")
        return "'".join(self._names.text(p) if k % 2 else p for k, p in enumerate(parts))

    async def _page(self, by: Mapping[str, Any]) -> list[Any]:
        scope, live = self._names.node(by["scope"]), self._live
        if scope not in self._pages:
            self._pages[scope] = await live.browser.open(live.installation.url, live.installation.tokens["admin"],
                                                         scope)
        seen = await live.browser.look(self._pages[scope], by["table"])
        return [] if seen is None else [self._names.off(seen)]

    async def close(self) -> None:
        """Close the pages that were opened."""
        for page in self._pages.values():
            await page.context.close()

    async def ask(self, method: str, path: str, person: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the body of a request to the gateway, names without prefixes."""
        url = self._live.installation.url + path
        more = {} if body is None else {"json": body}
        async with self._live.session.request(method, url, headers=self._live.headers(person, self._names.prefix),
                                              allow_redirects=False, **more) as reply:
            text = await reply.text()
        try:
            return reply.status, self._names.off(json.loads(text))
        except ValueError:
            return reply.status, self._names.off(text)

"""The page as a person sees it: what counts has a box on the screen."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
NAMES = ("chromium", "chromium-browser", "google-chrome")
LIVE_MS, SIGNED_IN = 15_000, 303
#: rows of data that have a box, and the texts of their cells; headers, totals and subtotals apart
_LOOK = """table => {
  const host = document.getElementById(table) || document.querySelector(`[data-table="${table}"]`);
  if (!host) return null;
  const seen = e => e.getClientRects().length > 0 && e.getBoundingClientRect().height > 0;
  const apart = e => e.matches('.head, .total, .subtotal, .empty, thead *, tfoot *, .muted:only-child');
  const titles = [...host.querySelectorAll('[role=columnheader], thead th')].map(
    e => e.textContent.replace(/[▲▼]/g, '').trim());
  let rows = [...host.querySelectorAll('.row, tbody tr, li')].filter(e => seen(e) && !apart(e));
  rows.sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
  const cells = rows.map(r => [...r.querySelectorAll('.cell, td')].map(c => c.textContent.trim()));
  const columns = {};
  titles.forEach((title, i) => { columns[title] = cells.map(c => c[i] ?? ''); });
  return {rows: rows.length, columns, texts: rows.map(r => r.textContent.trim())};
}"""


class NoBrowser(RuntimeError):
    """There is nothing here that shows a page."""


class Browser:
    """One Chromium for all scenarios, started when a page is first looked at."""

    def __init__(self) -> None:
        self._play: Any = None
        self._browser: Any = None
        self._lock = asyncio.Lock()

    async def _start(self) -> Any:
        async with self._lock:
            if self._browser is None:
                program = next(filter(None, map(shutil.which, NAMES)), None)
                if program is None:
                    raise NoBrowser("no Chromium on this machine")
                try:
                    from playwright.async_api import async_playwright
                except ImportError as error:
                    raise NoBrowser("Playwright is not installed") from error
                self._play = await async_playwright().start()
                self._browser = await self._play.chromium.launch(executable_path=program, args=list(FLAGS))
        return self._browser

    async def open(self, url: str, token: str, scope: str) -> Any:
        """Return the page under a scope, once its stream is live."""
        browser = await self._start()
        context = await browser.new_context(viewport={"width": 1500, "height": 1000})
        reply = await context.request.post(f"{url}/login", form={"token": token}, max_redirects=0)
        if reply.status != SIGNED_IN:
            raise RuntimeError(f"sign in: expected {SIGNED_IN}, was {reply.status}")
        page = await context.new_page()
        await page.goto(f"{url}/?scope={scope}")
        await page.wait_for_selector("#stream-chip[data-state=live]", timeout=LIVE_MS)
        return page

    async def look(self, page: Any, table: str) -> Any:
        """Return what a person sees of a table: ``rows``, ``columns.NAME``, ``texts``; None where there is none."""
        return await page.evaluate(_LOOK, table)

    async def stop(self) -> None:
        """Close it."""
        if self._browser is not None:
            await self._browser.close()
            await self._play.stop()

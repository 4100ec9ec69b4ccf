"""What answers of the gateway go through: headers that all have, and streams whose clients may be too slow."""

from __future__ import annotations

from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError

from app.metrics import PrometheusCounters


class SecurityHeaders:
    """Adds the same headers to every answer; plain ASGI, so that the stream is not buffered."""

    HEADERS = ((b"content-security-policy", b"default-src 'self'; style-src 'self'; frame-ancestors 'none'"),
               (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on with headers."""
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.HEADERS]
            await send(message)
        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class CountedStream(EventSourceResponse):
    """A stream whose client may be too slow: it is dropped, counted, and not logged as an error."""

    def __init__(self, content: Any, counters: PrometheusCounters, **options: Any) -> None:
        super().__init__(content, **options)
        self._counters = counters

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Stream until the client goes."""
        try:
            await super().__call__(scope, receive, send)
        except* SendTimeoutError:
            self._counters.add("sse_clients_dropped")

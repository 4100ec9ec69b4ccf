"""The real counters: Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class PrometheusCounters:
    """Counters by name, made on first use with the labels they are given."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[object, ...], Counter | Gauge | Histogram] = {}

    def _metric(self, kind: type, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        child = self._children.get((name, *labels.items()))
        if child is not None:
            return child
        metric = self._made.get(name)
        if metric is None:
            options = {"buckets": BUCKETS} if kind is Histogram else {}
            suffix = "" if kind is not Counter else "_total"
            metric = kind(f"deskrisk_{name}{suffix}", name.replace("_", " "), sorted(labels),
                          registry=self.registry, **options)
            self._made[name] = metric
        child = metric.labels(**labels) if labels else metric
        self._children[(name, *labels.items())] = child
        return child

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._metric(Counter, name, labels).inc(amount)  # type: ignore[union-attr]

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._metric(Gauge, name, labels).set(value)  # type: ignore[union-attr]

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a distribution."""
        self._metric(Histogram, name, labels).observe(value)  # type: ignore[union-attr]

    def serve(self, port: int, unready: Callable[[], str | None]) -> int:
        """Serve `/metrics` and `/health/ready` on loopback; return the port.

        ``unready`` says why the process is not ready, or None; it is asked from another thread.
        """
        metrics = make_wsgi_app(self.registry)

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ.get("PATH_INFO") != "/health/ready":
                return metrics(environ, start_response)
            why = unready()
            start_response("503 Service Unavailable" if why else "200 OK", [("Content-Type", "text/plain")])
            return [(why or "ready").encode() + b"\n"]

        server = make_server("127.0.0.1", port, answer, handler_class=_Quiet)
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return int(server.server_port)


class _Quiet(WSGIRequestHandler):
    """Logs no line a scrape."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

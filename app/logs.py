"""Logging: structlog over the standard library, one line an event, no secrets."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

#: libraries that log what we count: retried transaction starts, group chatter
QUIET = {"aiokafka": logging.ERROR, "faust": logging.WARNING, "mode": logging.WARNING, "kafka": logging.ERROR,
         "uvicorn.access": logging.WARNING, "numba": logging.WARNING, "asyncio": logging.ERROR}


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the engine's service chatter (``[^--Name]: Stopping...``) below warnings."""
    return record.levelno >= logging.WARNING or not record.getMessage().startswith("[^")


def configure(level: str, as_json: bool, process: str) -> None:
    """Set logging up for this process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name, structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (structlog.processors.JSONRenderer() if as_json
                     else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(),
                                            exception_formatter=structlog.dev.plain_traceback))
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, floor in QUIET.items():
        logging.getLogger(name).setLevel(max(floor, root.level))
    structlog.configure(processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
                        logger_factory=structlog.stdlib.LoggerFactory(), cache_logger_on_first_use=True)
    structlog.contextvars.bind_contextvars(process=process)

"""Sinks: topics into ClickHouse, each record once, never in the engine's way."""

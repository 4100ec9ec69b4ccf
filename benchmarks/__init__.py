"""Benchmarks: `make bench ARGS="NAME --size smoke|real --json"`."""

import app  # noqa: F401 - says how many threads linear algebra takes, before numpy is imported

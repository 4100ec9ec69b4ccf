"""Write docs/reference/ from the code (records, topics, reasons, settings, schemas); ``--check`` only compares."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.calc import describe  # noqa: E402
from app.cluster_checks import CHECKS  # noqa: E402
from app.settings import Settings  # noqa: E402
from schemas.codec import RECORDS, json_schemas  # noqa: E402
from schemas.controls import MEANING, Check  # noqa: E402
from schemas.reasons import QUARANTINE_MEANING, QUARANTINE_REMEDY  # noqa: E402
from schemas.rules import RULES, rules_cited  # noqa: E402
from schemas.topics import DAY_MS, REPLICAS, TOPICS  # noqa: E402
from tables.exit_codes import ExitCode  # noqa: E402

GENERATED = "<!-- written by docs/make_reference.py: change the code, not this file -->\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]) + "\n"


def kind(schema: dict[str, Any]) -> str:
    """Return a field's type, in words."""
    if "anyOf" in schema:
        return " or ".join(kind(s) for s in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(v) for v in schema["enum"])
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    found = schema.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)


def records() -> str:
    """Return the page of records."""
    out = [GENERATED, "# Records\n"]
    for name, schema in json_schemas().items():
        out.append(f"## {name}\n\n{(RECORDS[name].__doc__ or '').strip()}\n")
        required = set(schema.get("required", ()))
        out.append(table(["field", "type", "required"], [
            [f, kind(s), "yes" if f in required else ""] for f, s in schema["properties"].items()]))
    return "\n".join(out)


def topics() -> str:
    """Return the page of topics and quarantine reasons."""
    rows = [[f"`{t.name}`", t.key, t.direction, "compact" if t.compact else "delete", t.help] for t in TOPICS]
    reasons = [[f"`{r}`", text, QUARANTINE_REMEDY[r]] for r, text in QUARANTINE_MEANING.items()]
    return "\n".join([GENERATED, "# Topics\n", table(["topic", "key", "direction", "cleanup", "what"], rows),
                      "## Why a record is on `quarantine`\n", table(["reason", "meaning", "what to do"], reasons)])


def settings() -> str:
    """Return the page of settings."""
    rows = [[f"`DESKRISK_{n.upper()}`", str(f.default) if f.default is not None else "", f.description or ""]
            for n, f in Settings.model_fields.items()]
    return "\n".join([GENERATED, "# Settings\n", table(["variable", "default", "what"], rows)])


def controls() -> str:
    """Return the page of pre-trade controls: code, meaning, rule, tests; then rule by rule what answers it."""
    table_rows = (ROOT / "tests" / "tables" / "gate_rules.txt").read_text().splitlines()
    count = Counter(code for line in table_rows if not line.startswith("#")
                    for code in line.split(" | ")[3].replace("+", " ").split())
    sources = {str(path.relative_to(ROOT / "tests")): path.read_text()
               for path in sorted((ROOT / "tests").glob("*/test_*.py")) if path.stem != "test_gate_rules"}

    def tests_of(check: Check) -> str:
        named = [name for name, text in sources.items() if re.search(rf"\b{check.name}\b", text)]
        return ", ".join(([f"{count[check.name]} rows"] if count[check.name] else []) + named)

    codes: dict[str, list[str]] = {}
    for check in Check:
        for rule in rules_cited(MEANING[check][1]):
            codes.setdefault(rule, []).append(f"`{check.name}`")
    answers = [[r.name, r.demand, ", ".join(codes.get(r.name, [])), r.answer or (r.beyond and f"not here: {r.beyond}"),
                ", ".join(name.replace("::", " ") for name in r.tests)] for r in RULES]
    return "\n".join([GENERATED, "# Pre-trade controls\n",
                      "In the order they are reported; the first one is the primary reason. Tests: rows of "
                      "`tests/tables/gate_rules.txt`, each through the kernel and its naive twin, and the files under "
                      "`tests/` that name the code.\n",
                      table(["order", "code", "meaning", "rules", "tests"],
                            [[str(int(c)), f"`{c.name}`", *MEANING[c], tests_of(c)] for c in Check]),
                      "# Coverage by rule\n",
                      "What each rule demands, in our words; the codes above that cite it; what else answers it, and "
                      "the tests of that.\n", table(["rule", "demand", "codes", "also", "tests"], answers)])


def calculators() -> str:
    """Return the page of `deskrisk calc`."""
    rows = [[f"`{name}`", ", ".join(also), text.replace("\n", " ").replace("|", "/")]
            for name, also, text in describe()]
    return "\n".join([GENERATED, "# Calculators\n",
                      "`deskrisk calc NAME [FILE]` reads JSON lines and writes JSON lines. A field may have a short "
                      "name; both are given as long/short.\n",
                      "Every field is read or the line is refused: `error` has the field as the line names it "
                      "(nested ones as `fills[0].qty`), its value, what was expected and, where there is one, the "
                      "nearest known name. Null, text, true and NaN are no numbers (null is a missing value in a "
                      "series). A name twice, or two ways to say one thing that disagree, are refused. `conventions` "
                      "has every convention and default that the answer rests on; a figure that is null says why "
                      "under `undefined`. `id` and `name` are labels, returned as they came.\n",
                      table(["name", "also", "what it does"], rows)])


def exit_codes() -> str:
    """Return the page of exit codes."""
    rows = [[str(int(c)), f"`{c.name}`", c.meaning] for c in ExitCode]
    return "\n".join([GENERATED, "# Exit codes\n",
                      "From 70 on a process leaves by itself, and its supervisor starts a fresh one. The metric "
                      "`deskrisk_background_task_failures_total{role,task}` and the last lines of its log say which "
                      "task it was.\n", table(["code", "name", "meaning"], rows)])


def cluster() -> str:
    """Return the page of what is needed of a cluster."""
    rows = [[c.what, c.expected, c.promise] for c in CHECKS]
    created = [[f"`{t.name}`", ", ".join(f"`{k}={v}`" for k, v in t.broker_config(DAY_MS, REPLICAS).items())]
               for t in TOPICS]
    return "\n".join([GENERATED, "# What the promises need of a cluster\n",
                      "`deskrisk doctor --broker` looks at each of these and changes nothing. Exit code 0: every "
                      "promise that this cluster can keep is kept. Exit code 1: something is `wrong`: a promise is not "
                      "kept, and a command or a setting mends it; both are said. What this cluster cannot give "
                      "whatever its settings (one or two brokers, the embedded one), and what only a second defence "
                      "rests on, is `short`; what it does not say (no right to ask, a broker that does not know the "
                      "question) is `unknown`. Neither is an error, but with `--strict`. `--json` is one array of "
                      "findings.\n",
                      table(["check", "expected", "what falls short without it"], rows),
                      "## How topics are created\n",
                      "By `deskrisk topics create` and by every worker that starts, with three replicas, or as many as "
                      "there are brokers (`DESKRISK_REPLICATION`); here with three, and a rewind horizon of a day. A "
                      "topic that exists is never changed: `topics create`, `topics check` and `doctor --broker` say "
                      "what is wrong with it and the command that mends it.\n",
                      table(["topic", "settings"], created)])


def main() -> int:
    """Write or compare; return the exit code."""
    pages = {"records.md": records(), "topics.md": topics(), "settings.md": settings(), "controls.md": controls(),
             "calculators.md": calculators(), "exit-codes.md": exit_codes(), "cluster.md": cluster(),
             "schemas.json": json.dumps(json_schemas(), indent=1) + "\n"}
    folder = ROOT / "docs" / "reference"
    stale = [name for name, text in pages.items()
             if not (folder / name).exists() or (folder / name).read_text() != text]
    if "--check" in sys.argv:
        print("stale: " + ", ".join(stale) if stale else "up to date")
        return 1 if stale else 0
    for name in stale:
        (folder / name).write_text(pages[name])
    print(f"wrote {len(stale)} of {len(pages)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

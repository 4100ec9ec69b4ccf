"""Names of a scenario are given a prefix of their own on the way in; it is taken off what is shown."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

#: fields of records that name something, and what they name is the scenario's own
NAME_FIELDS = frozenset((
    "trade_id", "ref_trade_id", "order_id", "ref_order_id", "limit_id", "account", "instrument", "book", "desk",
    "strategy", "fund", "dealer", "pm", "owner", "trader", "traders", "issuer", "venue", "counterparty", "algo_id",
    "locate_id", "action_id"))
#: fields that hold a node, ``level:name``
NODE_FIELDS = frozenset(("node", "scope"))
#: nodes of these levels are nobody's own
SHARED_LEVELS = frozenset(("currency", "asset_class", "sector", "country"))
#: what follows these in the path of a request is an id
_ID_AFTER = re.compile(r"(?<=/api/limits/)([^/?$]+)|(?<=/api/decisions/)([^/?$]+)")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def prefix_of(number: int) -> str:
    """Return the prefix of the scenario of a number: four capital letters and digits, never the start of another."""
    out = ""
    for _ in range(3):
        number, digit = divmod(number, 36)
        out = _DIGITS[digit] + out
    return f"Q{out}"


class Names:
    """The names that a scenario uses, with and without its prefix.

    Parameters
    ----------
    prefix : empty where the scenario has an installation to itself
    levels : fields of accounts that name levels beyond those that all have
    """

    def __init__(self, prefix: str, levels: Iterable[str] = ()) -> None:
        self.prefix = prefix
        self.known: set[str] = set()
        self.underlyings: set[str] = set()
        self._name_fields = NAME_FIELDS | {level for level in levels if level != "firm"}

    def declare(self, reference: Mapping[str, Any]) -> None:
        """Learn the names that reference records give."""
        for record in (*(reference.get("instruments") or ()), *(reference.get("accounts") or ()),
                       *(reference.get("counterparties") or ())):
            self.learn(record)

    def learn(self, record: Mapping[str, Any]) -> None:
        """Learn the names of one record."""
        for field, value in record.items():
            if field in self._name_fields:
                self.known.update(v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str))
        if isinstance(record.get("instrument"), str):
            self.underlyings.add(record["instrument"])

    # ---- on the way in --------------------------------------------------------------------------------------------
    def put(self, name: str) -> str:
        """Return a name with the prefix."""
        return name if not name or name.startswith("${") else self.prefix + name

    def node(self, node: str) -> str:
        """Return a node with the prefix on its name: ``desk:D``; ``firm`` and ``all`` are everybody's."""
        level, colon, name = node.partition(":")
        if not colon or level in SHARED_LEVELS:
            return node
        return f"{level}:{self.put(name)}"

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record of a known kind with prefixed names."""
        out: dict[str, Any] = {}
        for field, value in record.items():
            if field in self._name_fields and isinstance(value, str):
                out[field] = self.put(value)
            elif field in self._name_fields and isinstance(value, list):
                out[field] = [self.put(v) if isinstance(v, str) else v for v in value]
            elif field in NODE_FIELDS and isinstance(value, str):
                out[field] = self.node(value)
            elif field == "underlying" and isinstance(value, str) and value in self.underlyings:
                out[field] = self.put(value)
            else:
                out[field] = value
        return out

    def text(self, text: str) -> str:
        """Return a text with the prefix, where as a whole it is a name that is known, or a node of one."""
        if text in self.known:
            return self.put(text)
        level, colon, name = text.partition(":")
        return f"{level}:{self.put(name)}" if colon and name in self.known else text

    def values(self, value: Any, ids: bool = True) -> Any:
        """Return any JSON value with prefixes on the names in it; ``ids``: on what the fields of ids hold too."""
        if isinstance(value, dict):
            return {self.text(k): self._field(k, v, ids) for k, v in value.items()}
        if isinstance(value, list):
            return [self.values(v, ids) for v in value]
        return self.text(value) if isinstance(value, str) else value

    def _field(self, field: str, value: Any, ids: bool) -> Any:
        if ids and field in self._name_fields and field.endswith("_id") and isinstance(value, str):
            return self.put(value)
        return self.values(value, ids)

    def path(self, path: str) -> str:
        """Return the path of a request with prefixes on its names and ids."""
        path = _ID_AFTER.sub(lambda m: self.put(m.group(0)), path)
        return re.sub(r"[^/?&=]+", lambda m: self.text(m.group(0)), path)

    def braces(self, text: str) -> str:
        """Return a text in which ``{A}`` stands for the prefixed name of A."""
        return re.sub(r"\{([^{}\s\"':,]+)\}", lambda m: self.put(m.group(1)), text)

    def command(self, words: Iterable[str]) -> list[str]:
        """Return the words of a command line with prefixes on names, nodes, and what ``--option=name`` gives."""
        out = []
        for word in words:
            option, equals, value = word.partition("=")
            out.append(f"{option}={self.text(value)}" if equals and word.startswith("--") else self.text(word))
        return out

    def file(self, name: str, text: str) -> str:
        """Return the text of a file with prefixes on the cells, or the scalars, that are names."""
        if not self.prefix:
            return text
        if name.lower().endswith((".yaml", ".yml")):
            return self._yaml(text)
        if name.lower().endswith(".json"):
            try:
                return json.dumps(self.values(json.loads(text)))
            except ValueError:
                return text
        return self._csv(text)

    def _csv(self, text: str) -> str:
        """Keep every line as it is but for the cells that are names: what is wrong with a file stays wrong."""
        lines = []
        for line in text.splitlines(keepends=True):
            body = line.rstrip("\r\n")
            try:
                (cells,) = list(csv.reader([body], strict=True)) or [[]]
            except (csv.Error, ValueError):
                cells = []
            changed = [self.text(c) for c in cells]
            if changed != cells:
                out = io.StringIO()
                csv.writer(out, lineterminator="").writerow(changed)
                line = out.getvalue() + line[len(body):]
            lines.append(line)
        return "".join(lines)

    def _yaml(self, text: str) -> str:
        def change(match: re.Match[str]) -> str:
            quote, scalar = match.group(2) or "", match.group(3)
            return f"{match.group(1)}{quote}{self.text(scalar)}{quote}"
        names = sorted((re.escape(n) for n in self.known), key=len, reverse=True)
        if not names:
            return text
        scalar = rf"(?:[a-z_]+:)?(?:{'|'.join(names)})"
        return re.sub(rf"(^\s*-\s+|:\s+|\[\s*|,\s+)([\"']?)({scalar})\2(?=\s*(?:[,\]}}]|$))", change, text,
                      flags=re.MULTILINE)

    # ---- on the way out -------------------------------------------------------------------------------------------
    def mine(self, raw: bytes) -> bool:
        """Return whether bytes speak of this scenario."""
        return not self.prefix or self.prefix.encode() in raw

    def off(self, value: Any) -> Any:
        """Return a value without the prefix, wherever it stands."""
        if not self.prefix:
            return value
        if isinstance(value, str):
            return value.replace(self.prefix, "")
        if isinstance(value, dict):
            return {self.off(k): self.off(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.off(v) for v in value]
        return value

    def mine_in(self, raw_base64: str) -> bool:
        """Return whether what was quarantined speaks of this scenario."""
        return self.mine(base64.b64decode(raw_base64 or ""))

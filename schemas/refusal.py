"""Why a record is refused: the field, what it was, what was expected."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec

from schemas.codec import JsonDecoder
from schemas.reasons import QuarantineReason

#: a value is shown up to so many characters
SHOWN = 120
_place = re.compile(r" - at `\$((?:\.\w+|\[\d+\])+)`$")
_anything: JsonDecoder[Any] = JsonDecoder(dict)
_step = re.compile(r"\.(\w+)|\[(\d+)\]")


def refusal(error: Exception, raw: Any, cls: type[msgspec.Struct]) -> str:
    """Return the text of a decoder's error, with the value that it refused and the values it would have taken.

    Parameters
    ----------
    error : what decoding ``raw`` as a ``cls`` raised
    raw : bytes of the record
    """
    text = str(error)
    place = _place.search(text)
    if place is None or not isinstance(error, msgspec.ValidationError):
        return text
    steps = _step.findall(place.group(1))
    expected = _expected(cls, steps[0][0]) if len(steps) == 1 else ""
    try:
        found = _anything.decode(raw)
        for name, index in steps:
            found = found[name] if name else found[int(index)]
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):  # what the decoder read is not JSON
        return text + expected
    return f"{text}{expected}, was {msgspec.json.encode(found).decode()[:SHOWN]}"


@cache
def _expected(cls: type[msgspec.Struct], name: str) -> str:
    """Return the words that a field can be, where it is one of a few."""
    info = msgspec.inspect.type_info(cls)
    if not isinstance(info, msgspec.inspect.StructType):
        return ""
    for field in info.fields:
        if field.encode_name == name:
            kinds = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
            words = [str(v) for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType) for v in kind.values]
            return f", expected {' or '.join(words)}" if words else ""
    return ""


class Refused(ValueError):
    """A record is refused under a code of its own."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def reason_of(error: Exception, raw: Any, cls: type[msgspec.Struct] | None) -> tuple[QuarantineReason, str]:
    """Return the code and the text under which a record is refused, equal for all its readers.

    Parameters
    ----------
    error : what decoding or applying the record raised
    raw : bytes of the record
    cls : what it was decoded as; None: something else than one record
    """
    if isinstance(error, msgspec.ValidationError):
        return QuarantineReason.BAD_FIELD, refusal(error, raw, cls) if cls is not None else str(error)
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return QuarantineReason.NOT_JSON, str(error)
    if isinstance(error, Refused):
        return error.reason, str(error)
    if isinstance(error, ValueError):
        return QuarantineReason.BAD_FIELD, str(error)
    return QuarantineReason.NOT_APPLIED, f"{type(error).__name__}: {error}"

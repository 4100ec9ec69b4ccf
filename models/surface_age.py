"""How old volatility surfaces and curves may be before what rests on them is stale."""

from __future__ import annotations

from schemas.market import Surface
from schemas.units import parse_ts_ns


class SurfaceAge:
    """The times of the surfaces of one market.

    Parameters
    ----------
    bound_ns : what rests on older ones is stale; None: however old they are
    """

    def __init__(self, bound_ns: int | None = None) -> None:
        self.bound_ns = bound_ns
        self._of_ns: dict[str, int] = {}

    def note(self, surface: Surface) -> None:
        """Note what time a surface is of."""
        if self.bound_ns is not None:
            self._of_ns[surface.underlying] = parse_ts_ns(surface.ts_event)

    def forget(self, name: str) -> None:
        """Forget a surface that was withdrawn."""
        self._of_ns.pop(name, None)

    def is_old(self, name: str, now_ns: int) -> bool:
        """Return whether a surface or curve is older than what rests on it may be."""
        of_ns = self._of_ns.get(name)
        return self.bound_ns is not None and of_ns is not None and now_ns - of_ns > self.bound_ns

    def of_ns(self, name: str) -> int:
        """Return what time a surface or curve is of; 0 where it is not bounded, or not there."""
        return self._of_ns.get(name, 0)

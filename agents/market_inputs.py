"""Surfaces and touched barriers as every reader of them takes them in."""

from __future__ import annotations

from agents.displaced import Displaced
from agents.router import Place, Router
from models.valued_book import ValuedBook
from schemas.codec import encode
from schemas.market import Surface, Touch


class MarketInputs:
    """Follows `market.surfaces` and `touches` into a book; knows what a refused record of them displaced."""

    def __init__(self, book: ValuedBook) -> None:
        self._book = book
        self._surfaces: dict[str, Surface] = {}
        self._touches: dict[str, Touch] = {}
        self.displaced = Displaced({"market.surfaces": lambda key: _encoded(self._surfaces.get(key)),
                                    "touches": lambda key: _encoded(self._touches.get(key))})

    def subscribe(self, router: Router) -> None:
        """Have a router hand their records on to this."""
        router.subscribe("market.surfaces", Surface, self._take_surface, self._drop_surface)
        # a touch that is withdrawn stays one: a person takes it back by a record
        router.subscribe("touches", Touch, self._take_touch, lambda place: self.displaced.gone(place.topic, place.key))

    def _take_surface(self, surface: Surface, place: Place) -> None:
        self._book.add_surface(surface)
        self._surfaces[surface.underlying] = surface
        self.displaced.came(place.topic, place.key, surface.underlying)

    def _drop_surface(self, place: Place) -> None:
        self._book.remove_surface(place.key)
        self._surfaces.pop(place.key, None)
        self.displaced.gone(place.topic, place.key)

    def _take_touch(self, touch: Touch, place: Place) -> None:
        self._book.add_touch(touch)
        self._touches[touch.instrument] = touch
        self.displaced.came(place.topic, place.key, touch.instrument)


def _encoded(record: Surface | Touch | None) -> bytes | None:
    return None if record is None else encode(record)

"""Contracts whose value is not their price times a quantity, their inputs and unit sensitivities: options here.

For every mark window the options whose underlying, own mark or surface moved are priced again in one kernel. The
volatility comes from the underlying's surface (sticky strike: a strike keeps its volatility when spot moves); without
one it is implied from the option's own mark. What lacks an input has no Greeks: it is counted, never zero.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import numpy as np

from models.columns import grown
from models.exotic_terms import exotic_terms
from models.fixed_income import FixedIncome
from models.forwards import NS_PER_YEAR, Forwards
from models.market import Market
from models.premium_table import MONEYNESS, add_premiums
from models.pricing import black_scholes as bs
from models.pricing.american import premium_grid
from models.pricing.curve import zero_rates
from models.pricing.exotic import DOWN_AND_IN, DOWN_AND_OUT, FIRST_DIGITAL, VANILLA, exotic_greeks
from models.pricing.spot_normal import normal_greeks, normal_implied
from models.surface_age import SurfaceAge
from schemas.instrument_terms import OPTION_CLASSES, PAPER_CLASSES
from schemas.market import RATE_MAX, RATE_MIN, VOL_MAX, Surface
from schemas.records import Instrument
from schemas.units import NS_PER_S, expiry_ns, parse_ts_ns

#: the table is kept until volatility, rate, carry or time have moved by this much
PREMIUM_VOL_MOVE, PREMIUM_RATE_MOVE, PREMIUM_AGE_YEARS = 0.01, 0.002, 1.0 / 365.0
#: how many tables are made anew for one window at most; the others keep theirs a window longer
PREMIUM_TABLES_PER_WINDOW = 16
#: options on options on options are priced in one window, up to so many
CHAIN_MAX = 4
#: curves and surfaces are looked up anew after this long, or when one changes
INPUTS_NS = 10_000_000_000
OPTION_DTYPE = np.dtype([
    ("instrument", "i4"), ("underlying", "i4"), ("sign", "f8"), ("strike", "f8"), ("expiry_ns", "i8"),
    ("american", "i1"), ("future", "i1"), ("implied", "i1"), ("exotic", "i1"), ("touched", "i1"),
    # valued by the normal model; its premium is in units of the underlying
    ("normal", "i1"), ("coin", "i1"),
    ("level", "f8"), ("payoff", "f8"),
    ("vol", "f8"), ("rate", "f8"), ("carry", "f8"), ("t_years", "f8"), ("model_price", "f8"),
    ("table_vol", "f8"), ("table_rate", "f8"), ("table_carry", "f8"), ("table_t", "f8")])


#: a lognormal volatility below is none: the quote is in other units, or says intrinsic value alone
LEAST_IMPLIED = 1e-3
INPUTS = ("sign", "strike", "t_years", "vol", "rate", "carry")


def exotic_columns(options: np.ndarray) -> np.ndarray:
    """Return what `exotic_price` takes of every option: float64[options, 4]."""
    return np.stack([options[f].astype(np.float64) for f in ("exotic", "level", "payoff", "touched")], axis=1)


def expiry_of(record: Instrument) -> int | None:
    """Return when an instrument expires, UTC ns; None where that is not stated, or stated as no date.

    `reference load` refuses such a text. On the topic the rest of the record stands: what needs the expiry is counted
    as without its terms.
    """
    if record.expiry is None:
        return None
    try:
        return expiry_ns(record.expiry)
    except ValueError:
        return None


def interpolate(points: list[tuple[float, float]], days: float) -> float:
    """Return a value at a term: linear between points, flat beyond; 0 where a list is empty (it pays nothing)."""
    if not points:
        return 0.0
    x, y = zip(*points, strict=True)
    return float(np.interp(days, x, y))


class Contracts:
    """Options and bonds of one market, and what their sensitivities rest on (``surface_age_ns``: see `SurfaceAge`)."""

    def __init__(self, market: Market, surface_age_ns: int | None = None) -> None:
        self.market, self.age = market, SurfaceAge(surface_age_ns)
        #: by option, whether what it rests on beside prices is too old; and of options and forwards, which that is
        self._old, self.rests_on_old = np.zeros(0, bool), dict[str, str]()
        self.options: Any = np.zeros(0, OPTION_DTYPE)
        self.option_row: dict[str, int] = {}
        self.tables = np.zeros((0, len(MONEYNESS)))
        self.surfaces: dict[str, Surface] = {}
        self._slices: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        self._records: dict[str, Instrument] = {}
        self.paper = FixedIncome(market)
        self.forwards = Forwards(market)
        self._all = True
        #: whether an option is on another one
        self._on_options = False
        self._inputs_ns = 0
        #: what is known of barriers that were touched, and those that marks have just touched: (option, spot)
        self._touches: dict[str, bool] = {}
        self._newly_touched: list[tuple[str, float]] = []

    def add(self, record: Instrument, on_future: bool = False) -> None:
        """Take an instrument in; what is worth its price needs nothing. One of another class: `forget` it first."""
        if record.asset_class in PAPER_CLASSES:
            self.paper.add(record)
        elif record.asset_class == "fx_forward":
            self._add_forward(record)
        elif record.asset_class in OPTION_CLASSES:
            self._add_option(record, on_future)

    def forget(self, name: str) -> None:
        """Forget what the terms of an instrument made of it, and of its figures; its mark stays."""
        self.paper.drop(name)
        self.forwards.drop(name)
        self._drop_option(name)
        self.market.forget(name)
        self.look_up_anew()

    def look_up_anew(self) -> None:
        """Have curves, surfaces and pairs looked up at the next `refresh`, and everything priced again."""
        self._all = True

    def _drop_option(self, name: str) -> None:
        k = self.option_row.pop(name, None)
        if k is None:
            return
        self.options, self.tables = np.delete(self.options, k), np.delete(self.tables, k, axis=0)
        self.option_row = {option: row for row, option in enumerate(self.option_row)}
        del self._records[name]
        self._newly_touched = [x for x in self._newly_touched if x[0] != name]

    def _add_forward(self, record: Instrument) -> None:
        expiry = expiry_of(record)
        if record.underlying and expiry is not None:
            self.forwards.add(record.instrument, record.underlying, record.currency, expiry)
            self._all = True
        else:  # without its terms it is worth nothing that is known
            self.forget(record.instrument)
            k = self.market.instrument(record.instrument)
            self.market.greek_kind[k], self.market.discount[k] = 1, np.nan

    def _add_option(self, record: Instrument, on_future: bool) -> None:
        expiry, exotic = expiry_of(record), exotic_terms(record)
        if record.underlying is None or record.strike is None or record.right is None or expiry is None \
                or exotic is None:  # without its terms it has no Greeks, whatever it had before; that is counted
            self.forget(record.instrument)
            self._note_unit(record)
            self.market.greek_kind[self.market.instrument(record.instrument)] = 1
            return
        self._note_unit(record)
        k = self.option_row.get(record.instrument)
        if k is None:
            k = self.option_row[record.instrument] = len(self.options)
            self.options = grown(self.options, k + 1)
            self.tables = np.concatenate([self.tables, np.zeros((1, len(MONEYNESS)))])
        o = self.options[k]
        o["instrument"] = self.market.instrument(record.instrument)
        o["underlying"] = self.market.instrument(record.underlying)
        o["sign"] = bs.CALL if record.right == "call" else bs.PUT
        o["strike"], o["expiry_ns"] = float(record.strike), expiry
        o["american"], o["future"] = record.style == "american", on_future
        o["exotic"], o["level"], o["payoff"] = exotic
        o["normal"], o["coin"] = record.model == "bachelier", record.premium_in_underlying
        o["touched"] = self._touches.get(record.instrument, False)
        o["table_t"] = np.nan
        self._records[record.instrument] = record
        self.market.greek_kind[o["instrument"]] = 1
        self._all = True

    def _note_unit(self, record: Instrument) -> None:
        """Know whether a unit of an option's price is one of its currency, or one of its underlying."""
        k, row = self.market.instrument(record.instrument), self.option_row.get(record.instrument)
        if not record.premium_in_underlying:
            self.market.discount[k] = 1.0
        elif row is None or not self.options["coin"][row]:  # until it is priced nobody knows what its unit is worth
            self.market.discount[k] = np.nan

    def underlying_is_future(self, name: str, is_future: bool) -> None:
        """Say whether an underlying is a future: options on it are priced by Black-76."""
        for option, k in self.option_row.items():
            if self._records[option].underlying == name:
                self.options[k]["future"] = is_future
                self._all = True

    def set_touched(self, option: str, touched: bool) -> None:
        """Know whether an option's barrier was touched, from its record; what marks touch later is touched again."""
        self._touches[option] = touched
        self._newly_touched = [x for x in self._newly_touched if x[0] != option]  # said already
        k = self.option_row.get(option)
        if k is not None and self.options[k]["touched"] != touched:
            self.options[k]["touched"] = touched
            self._all = True

    def take_touched(self) -> list[tuple[str, float]]:
        """Return the options whose barrier marks have touched since the last call, and where their underlying was."""
        out, self._newly_touched = self._newly_touched, []
        return out

    def _watch_barriers(self, which: np.ndarray) -> None:
        o = self.options
        kind = o["exotic"][which]
        watched = which[(kind >= 0) & (kind < FIRST_DIGITAL) & (o["touched"][which] == 0) & (o["t_years"][which] > 0)]
        if not len(watched):
            return
        names, spot = list(self.option_row), self.market.price[o["underlying"][watched]]
        down = np.isin(o["exotic"][watched], (DOWN_AND_OUT, DOWN_AND_IN))
        hit = np.where(down, spot <= o["level"][watched], spot >= o["level"][watched])
        for k, at in zip(watched[hit].tolist(), spot[hit].tolist(), strict=True):
            o["touched"][k] = 1
            self._touches[names[k]] = True
            self._newly_touched.append((names[k], at))

    def add_surface(self, surface: Surface) -> None:
        """Take market inputs in; a curve's quotes are made zero rates as of the record's time.

        Raises
        ------
        ValueError
            Quotes that no curve prices, or one of rates beyond those that a record may state.
        """
        if surface.curve is not None:
            as_of = datetime.fromtimestamp(parse_ts_ns(surface.ts_event) // NS_PER_S, UTC).date()
            rates = zero_rates(surface.curve, as_of)
            if odd := [rate for _, rate in rates if not RATE_MIN <= rate <= RATE_MAX]:
                raise ValueError(f"curve of {surface.underlying}: expected zero rates from {RATE_MIN:g} to "
                                 f"{RATE_MAX:g}, was {odd[0]:g}")
            surface = msgspec.structs.replace(surface, rates=rates, curve=None)
        slices = {expiry_ns(s.expiry): (np.array(s.strikes), np.array(s.vols)) for s in surface.vols or ()}
        self.surfaces[surface.underlying] = surface
        self.age.note(surface)
        self._slices[surface.underlying] = dict(sorted(slices.items()))
        self._all = True

    def remove_surface(self, name: str) -> None:
        """Forget the market inputs of an underlying or a currency: they were withdrawn."""
        if self.surfaces.pop(name, None) is not None:
            self.age.forget(name)
            self._slices.pop(name, None)
            self._all = True

    def surface_vol(self, underlying: str, strike: float, at_ns: int, now_ns: int) -> float:
        """Return a volatility of the surface: linear in strike, linear in total variance between expiries; or NaN."""
        slices = self._slices.get(underlying)
        if not slices:
            return float("nan")
        expiries = list(slices)
        values = [float(np.interp(strike, *slices[e])) for e in expiries]
        years = [max((e - now_ns) / NS_PER_YEAR, 1e-9) for e in expiries]
        t = max((at_ns - now_ns) / NS_PER_YEAR, 1e-9)
        if t <= years[0] or len(years) == 1:
            return values[0]
        variance = float(np.interp(t, years, [v * v * y for v, y in zip(values, years, strict=True)]))
        return values[-1] if t >= years[-1] else float(np.sqrt(variance / t))

    def _by_instrument(self, field: str, n: int, missing: float) -> np.ndarray:
        out = np.full(n, missing)
        inside = self.options["instrument"] < n
        out[self.options["instrument"][inside]] = self.options[field][inside]
        return out

    def coin_by_instrument(self, n: int) -> np.ndarray:
        """Return which instruments are options whose premium is in units of their underlying."""
        return self._by_instrument("coin", n, 0.0) != 0.0

    def vol_by_instrument(self, n: int) -> np.ndarray:
        """Return the volatility of every option, 0 for what is none."""
        return self._by_instrument("vol", n, 0.0)

    def rate_by_instrument(self, n: int) -> np.ndarray:
        """Return the riskless rate of every option, 0 for what is none."""
        return self._by_instrument("rate", n, 0.0)

    def underlying_by_instrument(self, n: int) -> np.ndarray:
        """Return the underlying of every option, -1 for what is none."""
        return self._by_instrument("underlying", n, -1).astype(np.int64)

    def rate_at(self, currency: str, days: float) -> float:
        """Return a currency's continuous annual rate at a term; NaN without a curve."""
        curve = self.surfaces.get(currency)
        return interpolate(curve.rates, days) if curve is not None and curve.rates is not None else float("nan")

    def refresh(self, now_ns: int, day: date) -> int:
        """Price again what the market's last changes touch; return how many contracts.

        Call it before positions are valued: it marks the instruments whose sensitivities moved as changed.

        Parameters
        ----------
        day : the trading day; paper traded on it settles so many business days later
        """
        market, o = self.market, self.options
        anew = self._all or abs(now_ns - self._inputs_ns) > INPUTS_NS
        if anew:
            self.rests_on_old = self.forwards.look_up(now_ns, self.rate_at, self.age.is_old)
            self._inputs_ns = now_ns
        n = self.paper.refresh(day) + self.forwards.refresh(now_ns, anew)
        if not len(o):
            self._all = False
            return n
        changed = market.instrument_changed
        which = (np.arange(len(o)) if anew
                 else np.flatnonzero((changed[o["instrument"]] != 0) | (changed[o["underlying"]] != 0)))
        if anew:
            self._inputs(which, now_ns)
            self._all = False
        for _ in range(CHAIN_MAX):
            if len(which):
                o["t_years"][which] = np.maximum((o["expiry_ns"][which] - now_ns) / NS_PER_YEAR, 0.0)
                self._watch_barriers(which)
                self._imply(which)
                self._price(which)
                n += len(which)
            if not self._on_options or not len(which):
                break
            which = np.flatnonzero(np.isin(o["underlying"], o["instrument"][which]))  # what is on these follows now
        return n

    def _inputs(self, which: np.ndarray, now_ns: int) -> None:
        """Fill rate, carry and volatility of options; NaN where an input is missing."""
        names, o = list(self.option_row), self.options
        self._old = np.zeros(len(o), bool)
        self._on_options = bool(np.isin(o["underlying"], o["instrument"]).any())
        for k in which.tolist():
            row, record = o[k], self._records[names[k]]
            t = (int(row["expiry_ns"]) - now_ns) / NS_PER_YEAR
            row["t_years"] = max(t, 0.0)
            underlying = self.surfaces.get(record.underlying or "")
            row["rate"] = self.rate_at(record.currency, t * 365)
            if row["future"]:
                row["carry"] = 0.0
            else:
                paid = self._yield_of(record.underlying or "", underlying)
                row["carry"] = np.nan if paid is None else row["rate"] - interpolate(paid, t * 365)
            row["vol"] = self.surface_vol(record.underlying or "", float(row["strike"]), int(row["expiry_ns"]), now_ns)
            if not row["normal"] and row["vol"] > VOL_MAX:  # in price units: none that a lognormal price can have
                row["vol"] = np.nan
            if row["exotic"] != VANILLA:  # its own mark does not say which volatility; on a future it is not priced
                row["vol"] = np.nan if row["future"] else row["vol"]
                row["implied"] = 0
            else:
                row["implied"] = np.isnan(row["vol"])
            pair = self.market.pairs.get(record.underlying or "", ("",)) if not row["future"] else ("",)
            old = [n for n in (record.currency, record.underlying or "", pair[0]) if self.age.is_old(n, now_ns)]
            if old:
                self._old[k], self.rests_on_old[names[k]] = True, old[0]

    def _yield_of(self, name: str, underlying: Surface | None) -> list[tuple[float, float]] | None:
        """Return what holding an underlying pays: its dividends, or of a currency pair the base currency's rates."""
        if underlying is not None and underlying.dividends is not None:
            return underlying.dividends
        pair = self.market.pairs.get(name)
        foreign = self.surfaces.get(pair[0]) if pair else None
        return foreign.rates if foreign is not None else None

    def _imply(self, which: np.ndarray) -> None:
        """Fill the volatility of options without a surface: what their own mark implies."""
        market, o = self.market, self.options
        missing = which[(o["implied"][which] != 0) & (o["t_years"][which] > 0)]
        for imply, rows in ((bs.implied_volatilities, missing[o["normal"][missing] == 0]),
                            (normal_implied, missing[o["normal"][missing] != 0])):
            if not len(rows):
                continue
            vol, m = np.empty(len(rows)), o[rows]
            spot, premium = market.price[m["underlying"]], market.mid[m["instrument"]]
            imply(m["sign"].copy(), spot, m["strike"].copy(), m["t_years"].copy(), m["rate"].copy(), m["carry"].copy(),
                  np.where(m["coin"] != 0, premium * spot, premium), vol)
            vol[vol < np.where(m["normal"] != 0, 0.0, LEAST_IMPLIED)] = np.nan
            self.options["vol"][rows] = vol

    def _price(self, which: np.ndarray) -> None:
        market, o = self.market, self.options[which]
        spot = market.price[o["underlying"]]
        sign, strike, t, vol, rate, carry = (np.ascontiguousarray(o[f]) for f in INPUTS)
        g = bs.greeks(sign, spot, strike, t, vol, rate, carry, 1.0 - o["future"].astype(float))
        self._make_tables(which, np.isfinite(g.price) & (o["american"] != 0))
        add_premiums(self.tables, which, self.options["table_t"], np.ascontiguousarray(o["american"]), MONEYNESS, spot,
                     strike, g.price, g.delta, g.gamma)
        exotic = np.flatnonzero(o["exotic"] != VANILLA)
        if len(exotic):
            e, values = o[exotic], np.empty((len(exotic), 6))
            kind = e["exotic"].astype(np.int64)
            exotic_greeks(np.where(kind < FIRST_DIGITAL, kind, -1), kind - FIRST_DIGITAL, sign[exotic], spot[exotic],
                          strike[exotic], e["level"].copy(), e["payoff"].copy(), t[exotic], vol[exotic], rate[exotic],
                          carry[exotic], e["touched"].copy(), values)
            for column, one in zip(values.T, (g.price, g.delta, g.gamma, g.vega, g.theta, g.rho), strict=True):
                one[exotic] = column
        normal = np.flatnonzero(o["normal"] != 0)
        if len(normal):
            values = normal_greeks(sign[normal], spot[normal], strike[normal], t[normal], vol[normal], rate[normal],
                                   carry[normal], o["future"][normal] != 0)
            for column, one in zip(values.T, (g.price, g.delta, g.gamma, g.vega, g.theta, g.rho), strict=True):
                one[normal] = column
        unit = market.unit_greeks
        where = o["instrument"]
        # what has expired is worth what it was settled at: its own last mark, nothing that moves with a live price
        expired = t <= 0.0
        g.price[expired] = np.nan
        for one in (g.delta, g.gamma, g.vega, g.theta, g.rho):
            one[expired] = 0.0
        coin = o["coin"] != 0
        market.discount[where[coin]] = np.where(spot[coin] > 0.0, spot[coin], np.nan)
        unit[where, 0] = np.where(expired, 0.0, g.delta * spot)
        unit[where, 1] = np.where(expired, 0.0, g.gamma * spot * spot / 100.0)
        unit[where, 2] = g.vega / 100.0
        unit[where, 3] = g.theta / 365.0
        unit[where, 4] = g.rho / 10_000.0
        self.options["model_price"][which] = g.price
        # an option that nobody quotes is valued by the model where the surface allows it
        unquoted = np.isnan(market.mid[where])
        g.price[coin] /= market.discount[where[coin]]
        market.price[where[unquoted]] = g.price[unquoted]
        market.set_inputs_stale(where, (market.stale[o["underlying"]] != 0) | self._old[which])
        market.instrument_changed[where] = 1

    def _make_tables(self, which: np.ndarray, american: np.ndarray) -> None:
        o = self.options
        rows = which[american]
        stale = rows[~((np.abs(o["table_vol"][rows] - o["vol"][rows]) < PREMIUM_VOL_MOVE)
                       & (np.abs(o["table_rate"][rows] - o["rate"][rows]) < PREMIUM_RATE_MOVE)
                       & (np.abs(o["table_carry"][rows] - o["carry"][rows]) < PREMIUM_RATE_MOVE)
                       & (np.abs(o["table_t"][rows] - o["t_years"][rows]) < PREMIUM_AGE_YEARS))]
        fresh = np.isnan(o["table_t"][stale])
        stale = np.concatenate([stale[fresh], stale[~fresh][:PREMIUM_TABLES_PER_WINDOW]])
        if not len(stale):
            return
        s = o[stale]
        grid = np.empty((len(stale), len(MONEYNESS)))
        sign, strike, t, vol, rate, carry = (np.ascontiguousarray(s[f]) for f in INPUTS)
        premium_grid(sign, MONEYNESS, strike, t, vol, rate, carry, grid)
        self.tables[stale] = grid
        for table, now in (("table_vol", "vol"), ("table_rate", "rate"), ("table_carry", "carry"),
                           ("table_t", "t_years")):
            self.options[table][stale] = s[now]

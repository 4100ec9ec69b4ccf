"""A simulated market and trading floor, seeded: the demo's upstream systems.

Instruments of every asset class, five funds with strategies, desks, books and dealers, quotes in bursts and trades at
them. The same seed gives the same universe and the same sequence of events; the clock is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np

from models.pricing.black_scholes import option_prices
from schemas.asset_classes import COINS
from schemas.market import Surface, VolSlice
from schemas.records import Account, Instrument, Limit

FX = {"EURUSD": 1.0842, "GBPUSD": 1.2710, "AUDUSD": 0.6521, "NZDUSD": 0.5987, "USDCAD": 1.3652, "USDCHF": 0.8841,
      "USDJPY": 151.32, "EURGBP": 0.8530, "EURJPY": 164.06, "EURCHF": 0.9585, "GBPJPY": 192.33, "AUDJPY": 98.67,
      "EURSEK": 11.42, "EURNOK": 11.71, "USDSEK": 10.53, "USDNOK": 10.80, "USDMXN": 17.12, "USDZAR": 18.71,
      "USDSGD": 1.3441, "USDHKD": 7.8201, "EURPLN": 4.331, "EURHUF": 391.2, "USDTRY": 32.11, "EURAUD": 1.6626}
SECTORS = ("tech", "financials", "health", "energy", "industrials", "consumer", "utilities", "materials")
COUNTRIES = (("US", "USD"), ("US", "USD"), ("US", "USD"), ("DE", "EUR"), ("FR", "EUR"), ("GB", "GBP"), ("JP", "JPY"))
FUTURES = {"ES": (5210.0, 50, 0.25, "USD"), "NQ": (18210.0, 20, 0.25, "USD"), "FDAX": (18400.0, 25, 1.0, "EUR"),
           "FESX": (5030.0, 10, 1.0, "EUR"), "CL": (79.4, 1000, 0.01, "USD"), "GC": (2180.0, 100, 0.1, "USD"),
           "ZN": (110.5, 1000, 0.015625, "USD"), "FGBL": (132.6, 1000, 0.01, "EUR"),
           "6E": (1.0861, 125000, 5e-05, "USD"),
           "NK": (39800.0, 1000, 10.0, "JPY")}
PERPETUALS = {"BTC-PERP": (67210.0, False, 1.0), "ETH-PERP": (3520.0, False, 1.0), "SOL-PERP": (182.0, False, 1.0),
              "ADA-PERP": (0.652, False, 1.0), "XRP-PERP": (0.611, False, 1.0), "BTCUSD-INV": (67215.0, True, 100.0),
              "ETHUSD-INV": (3521.0, True, 10.0)}
FUNDS = ("ALPHA", "BETA", "GAMMA", "DELTA", "OMEGA")
STRATEGIES = ("MACRO", "RV")
DESKS_PER_STRATEGY, BOOKS_PER_DESK, ACCOUNTS_PER_BOOK = 2, 2, 2
INSTRUMENTS_PER_ACCOUNT = 60
#: annual volatility by asset class, for the random walk
VOLATILITY = {"fx": 0.08, "equity": 0.28, "future": 0.18, "option": 0.9, "bond": 0.05, "perpetual": 0.7,
              "money_market": 0.003, "fx_forward": 0.08}
YEAR_S = 31_536_000.0
OPTION_VOLATILITY, OPTION_EXPIRY = 0.28, "2027-03-19"
RATES = {"USD": 0.043, "EUR": 0.021, "GBP": 0.040, "JPY": 0.005}
BILLS = {"2027-02-18": 98.97, "2027-05-20": 97.93}
FORWARD_PAIRS, FORWARD_DATE, FORWARD_YEARS = ("EURUSD", "GBPUSD"), "2027-05-20", 0.5


@dataclass(frozen=True)
class Listing:
    """An instrument and where it trades at the start."""

    instrument: Instrument
    price: float
    spread: float
    tick: float
    lot: float


def _decimal(value: float) -> Decimal:
    return Decimal(f"{value:.10f}").normalize()


#: initial and maintenance margin by asset class, as shares of the notional; of all others a fifth and a tenth
MARGINS = {"fx": ("0.03", "0.02"), "equity": ("0.5", "0.25"), "future": ("0.1", "0.08"), "perpetual": ("0.05", "0.025"),
           "bond": ("0.1", "0.05"), "fx_forward": ("0.03", "0.02")}


def _listing(name: str, asset_class: str, currency: str, price: float, tick: float, lot: float,
             **more: object) -> Listing:
    initial, maintenance = (Decimal(rate) for rate in MARGINS.get(asset_class, ("0.2", "0.1")))
    instrument = Instrument(
        instrument=name, asset_class=asset_class, currency=currency,  # type: ignore[arg-type]
        margin_initial=initial, margin_maintenance=maintenance,
        price_increment=_decimal(tick), quantity_increment=Decimal(1),
        prior_close=_decimal(round(price / tick) * tick), **more)  # type: ignore[arg-type]
    return Listing(instrument, price, max(tick, 2 * tick), tick, lot)


def universe(seed: int) -> list[Listing]:
    """Return the instruments of a seed: FX, equities, futures, options, bonds, perpetuals."""
    rng = np.random.default_rng(seed)
    out = [_listing(n, "fx", n[3:], p, 0.001 if p > 50 else 0.00001, 250_000.0) for n, p in FX.items()]
    equities = []
    for i in range(110):
        country, currency = COUNTRIES[int(rng.integers(len(COUNTRIES)))]
        price = float(np.round(np.exp(rng.normal(4.2, 0.8)) * (100 if currency == "JPY" else 1), 2))
        equities.append(_listing(f"EQ{i:03d}.{country}", "equity", currency, price, 0.01, 500.0, country=country,
                                 sector=SECTORS[int(rng.integers(len(SECTORS)))], issuer=f"Issuer {i:03d}",
                                 adv=Decimal(int(rng.integers(1, 40)) * 100_000)))
    out += equities
    out += [_listing(n, "future", ccy, p, tick, 5.0, multiplier=_decimal(mult), expiry="2027-03-19")
            for n, (p, mult, tick, ccy) in FUTURES.items()]
    for i in range(40):
        under = equities[i % 10]
        strike = round(under.price * float(rng.uniform(0.9, 1.1)), 0) or 1.0
        right = "call" if i % 2 else "put"
        out.append(_listing(f"{under.instrument.instrument}-{right[0].upper()}{strike:.0f}-{i:02d}", "option",
                            under.instrument.currency, max(under.price * 0.04, 0.1), 0.01, 20.0,
                            multiplier=Decimal(100), underlying=under.instrument.instrument, right=right,
                            strike=_decimal(strike), expiry=OPTION_EXPIRY, style="american" if i % 4 else "european"))
    for i in range(20):
        out.append(_listing(f"BOND{i:02d}", "bond", "USD" if i % 2 else "EUR", float(rng.uniform(92, 108)), 0.01,
                            100_000.0, multiplier=Decimal("0.01"), coupon=_decimal(float(rng.uniform(1, 6))),
                            maturity=f"{2028 + i % 20}-06-15", frequency=2, issuer=f"Treasury {i % 4}",
                            calendar="US-BONDS" if i % 2 else "TARGET", settlement_days=1 if i % 2 else 2))
    for name, (price, inverse, contract) in PERPETUALS.items():
        out.append(_listing(name, "perpetual", "USD", price, price * 1e-5, 50.0, inverse=inverse, sector=COINS,
                            multiplier=_decimal(contract), settlement="BTC" if "BTCUSD" in name else
                            "ETH" if "ETHUSD" in name else None))
    for coin, price in (("BTCUSD", 67205.0), ("ETHUSD", 3519.5)):
        out.append(_listing(coin, "fx", "USD", price, 0.01, 1.0, sector=COINS))
    out += [_listing(f"BILL-{maturity}", "money_market", "USD", price, 0.001, 100_000.0, multiplier=Decimal("0.01"),
                     maturity=maturity, calendar="US-BONDS", settlement_days=1, issuer="Treasury 0")
            for maturity, price in BILLS.items()]
    out += [_listing(f"{pair}-{FORWARD_DATE}", "fx_forward", pair[3:], FX[pair] * forward_points(pair), 0.00001,
                     250_000.0, underlying=pair, expiry=FORWARD_DATE) for pair in FORWARD_PAIRS]
    return out


def forward_points(pair: str) -> float:
    """Return a forward over its pair's spot, from the rates of both currencies."""
    return float(np.exp((RATES[pair[3:]] - RATES[pair[:3]]) * FORWARD_YEARS))


def surfaces(seed: int, ts_ns: int) -> list[Surface]:
    """Return the curves of all currencies and the surfaces of all underlyings of options."""
    out = [Surface(underlying=c, ts_event=ts_ns, source="sim", rates=[(1.0, r), (3650.0, r)]) for c, r in RATES.items()]
    listings = {x.instrument.instrument: x for x in universe(seed)}
    for name in sorted(x for x in {x.instrument.underlying for x in listings.values() if x.instrument.right} if x):
        spot = listings[str(name)].price
        strikes = [round(spot * m, 4) for m in (0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)]
        vols = [OPTION_VOLATILITY + 0.15 * (1 - k / spot) ** 2 + 0.05 * (1 - k / spot) for k in strikes]
        out.append(Surface(underlying=str(name), ts_event=ts_ns, source="sim", dividends=[(365.0, 0.015)],
                           vols=[VolSlice(expiry=OPTION_EXPIRY, strikes=strikes, vols=vols)]))
    return out


def history(seed: int, days: int = 520) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return (dates, prices by symbol) of the days before the start: a market, sectors, currencies, coins, rates.

    The last day is the start's price; ``VOL:`` series are volatilities of options' underlyings, ``RATE:`` rates.
    """
    rng = np.random.default_rng(seed + 2)
    listings = [x for x in universe(seed) if not x.instrument.underlying]
    n = len(listings)
    fat = rng.standard_t(4, (days, 4)) / np.sqrt(2.0)  # market, currencies, coins, rates
    sector = {s: rng.normal(0, 1, days) for s in SECTORS}
    moves = np.empty((days, n))
    for k, x in enumerate(listings):
        own, daily = rng.normal(0, 1, days), VOLATILITY[x.instrument.asset_class] / np.sqrt(252)
        common = {"fx": fat[:, 1], "perpetual": fat[:, 2], "bond": -fat[:, 3],
                  "money_market": -fat[:, 3]}.get(x.instrument.asset_class, fat[:, 0])
        if x.instrument.asset_class == "fx" and x.instrument.sector == COINS:
            common, daily = fat[:, 2], 0.6 / np.sqrt(252)
        of_sector = sector.get(x.instrument.sector or "", np.zeros(days))
        moves[:, k] = daily * (0.65 * common + 0.35 * of_sector + 0.6 * own)
    levels = np.exp(np.cumsum(moves, axis=0))
    out = {x.instrument.instrument: x.price * levels[:, k] / levels[-1, k] for k, x in enumerate(listings)}
    for name in sorted(x for x in {x.instrument.underlying for x in universe(seed) if x.instrument.right} if x):
        out[f"VOL:{name}"] = OPTION_VOLATILITY + 0.01 * np.cumsum(rng.normal(0, 0.4, days) - 0.5 * fat[:, 0]) * 0.2
    for currency, rate in RATES.items():
        out[f"RATE:{currency}"] = rate + 0.0005 * np.cumsum(0.7 * fat[:, 3] + 0.7 * rng.normal(0, 1, days))
    last = date(2026, 11, 20)
    return [(last - timedelta(days=days - 1 - i)).isoformat() for i in range(days)], out


def limits() -> list[Limit]:
    """Return the floor's limits: caps on every order, exposures of firm and funds, a day's loss that halts a desk."""
    def made(limit_id: str, node: str, metric: str, value: float, **more: object) -> Limit:
        return Limit(limit_id=limit_id, node=node, metric=metric, limit=Decimal(str(value)), version=1, by="risk-1",
                     reason="opening limits of the floor", **more)  # type: ignore[arg-type]

    out = [made("L-QTY", "firm", "order_quantity", 25_000_000), made("L-VALUE", "firm", "order_value", 50_000_000),
           made("L-GROSS", "firm", "gross", 6_000_000_000, mode="soft"),
           made("L-VAR", "firm", "var_hist", 9_000_000, mode="soft")]
    out += [made(f"L-RATE-{f}", f"fund:{f}", "message_count", 500, window_ms=1000) for f in FUNDS]
    out += [made(f"L-NET-{f}", f"fund:{f}", "net", 400_000_000, mode="soft") for f in FUNDS]
    desks = sorted({a.desk for a in accounts()})
    return out + [made(f"L-LOSS-{d}", f"desk:{d}", "loss_day", 25_000_000, action="halt") for d in desks]


def write_history(seed: int, path: Path) -> Path:
    """Write the seed's history as Parquet; return where."""
    import pyarrow as pa
    from pyarrow import parquet

    days, prices = history(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"date": days} | prices), path)
    return path


def accounts() -> list[Account]:
    """Return every account of the trading floor."""
    out = []
    for f, fund in enumerate(FUNDS):
        base = ("USD", "EUR", "USD", "GBP", "USD")[f]
        for strategy in STRATEGIES:
            for d in range(DESKS_PER_STRATEGY):
                desk = f"{fund}-{strategy}-D{d + 1}"
                for b in range(BOOKS_PER_DESK):
                    for a in range(ACCOUNTS_PER_BOOK):
                        out.append(Account(
                            account=f"{desk}-B{b + 1}-{a + 1:03d}", book=f"{desk}-B{b + 1}", desk=desk,
                            strategy=f"{fund}-{strategy}", fund=fund, base_currency=base,
                            dealer=f"dealer-{(f * 4 + d * 2 + b) % 12 + 1}", pm=f"pm-{f + 1}{strategy[0]}",
                            nav=Decimal(100_000_000), counterparty=f"PRIME-{(f + b) % 4 + 1}"))
    return out


class Market:
    """Prices as a random walk, quoted in bursts; trades at the quotes."""

    def __init__(self, seed: int) -> None:
        self.listings = universe(seed)
        self.accounts = accounts()
        self._rng = np.random.default_rng(seed + 1)
        self.price = np.array([x.price for x in self.listings])
        self._tick = np.array([x.tick for x in self.listings])
        self._spread = np.array([x.spread for x in self.listings])
        self._volatility = np.array([VOLATILITY[x.instrument.asset_class] for x in self.listings])
        place = {x.instrument.instrument: k for k, x in enumerate(self.listings)}
        options = [(k, x.instrument) for k, x in enumerate(self.listings) if x.instrument.right]
        self._option = np.array([k for k, _ in options])
        self._under = np.array([place[str(i.underlying)] for _, i in options])
        self._sign = np.array([1.0 if i.right == "call" else -1.0 for _, i in options])
        self._strike = np.array([float(i.strike or 0) for _, i in options])
        forwards = [(k, x.instrument) for k, x in enumerate(self.listings) if x.instrument.asset_class == "fx_forward"]
        self._forward = np.array([k for k, _ in forwards])
        self._forward_pair = np.array([place[str(i.underlying)] for _, i in forwards])
        self._points = np.array([forward_points(str(i.underlying)) for _, i in forwards])
        self._rate = np.array([RATES[i.currency] for _, i in options])
        self._follow()
        self._heat = np.ones(len(self.listings))
        self._menu = [self._rng.choice(len(self.listings), INSTRUMENTS_PER_ACCOUNT, replace=False)
                      for _ in self.accounts]
        self._trade_count = self._order_count = 0

    def quotes(self, dt_s: float, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move prices by ``dt_s`` seconds; return (instrument, bid, ask) of about ``rate * dt_s`` quotes, in order.

        Heat moves from instrument to instrument: a hot one gets several hundred quotes a second.
        """
        n = len(self.listings)
        self._heat *= 0.98
        if self._rng.random() < 4 * dt_s:
            self._heat[self._rng.integers(n)] += 60.0
        weight = self._heat + 0.4
        which = self._rng.choice(n, max(1, int(self._rng.poisson(rate * dt_s))), p=weight / weight.sum())
        which[: min(n, 2)] = self._rng.integers(0, n, min(n, 2, len(which)))
        step = self._rng.normal(0, 1, len(which)) * self._volatility[which] * np.sqrt(dt_s / YEAR_S) * 3
        np.multiply.at(self.price, which, np.exp(step))
        self._follow()
        mid = self.price[which] * (1 + step / 2)
        tick, half = self._tick[which], self._spread[which] / 2
        bid = np.maximum(np.floor((mid - half) / tick), 1) * tick
        return which, bid, bid + np.maximum(np.round(2 * half / tick), 1) * tick

    def _follow(self) -> None:
        """Set the prices of options and forwards from their underlyings'."""
        n = len(self._option)
        prices = np.empty(n)
        option_prices(self._sign, self.price[self._under], self._strike, np.full(n, 0.32),
                      np.full(n, OPTION_VOLATILITY), self._rate, self._rate - 0.015, prices)
        self.price[self._option] = np.maximum(prices, self._tick[self._option])
        self.price[self._forward] = self.price[self._forward_pair] * self._points

    def all_quotes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return one quote of every instrument, at the present prices."""
        which = np.arange(len(self.listings))
        bid = np.maximum(np.floor(self.price / self._tick), 1) * self._tick
        return which, bid, bid + self._tick * 2

    def trade(self, ts_ns: int, account: int | None = None, instrument: int | None = None) -> dict[str, object]:
        """Return one trade at the market; sizes are lots, sides lean so that positions grow and shrink."""
        rng = self._rng
        a = int(rng.integers(len(self.accounts))) if account is None else account
        k = int(self._menu[a][int(rng.integers(INSTRUMENTS_PER_ACCOUNT))]) if instrument is None else instrument
        listing = self.listings[k]
        buy = bool(rng.random() < 0.5 + 0.15 * np.sin(a + k))
        price = round(self.price[k] / listing.tick + (1 if buy else -1)) * listing.tick
        self._trade_count += 1
        quantity = max(1.0, float(rng.integers(1, 9)) * listing.lot)
        out: dict[str, object] = {
            "trade_id": f"S-{self._trade_count:09d}", "account": self.accounts[a].account,
            "instrument": listing.instrument.instrument, "side": "buy" if buy else "sell",
            "quantity": f"{quantity:.0f}", "price": f"{price:.{_decimals(listing.tick)}f}", "ts_event": ts_ns,
            "trader": f"trader-{a % 23 + 1}", "counterparty": f"BANK{k % 7 + 1}", "venue": f"V{k % 5 + 1}"}
        if rng.random() < 0.2:
            out["fees"] = [{"amount": f"{quantity * 0.0001:.4f}", "currency": listing.instrument.currency}]
        return out

    def order(self, ts_ns: int) -> dict[str, object]:
        """Return one order near the market; some are too large, some far through the price."""
        rng = self._rng
        trade = self.trade(ts_ns)
        self._order_count += 1
        price, size = float(str(trade["price"])), float(str(trade["quantity"]))
        dice = rng.random()
        if dice < 0.04:
            price *= 1.2 if trade["side"] == "buy" else 0.8
        elif dice < 0.08:
            size *= 2_000
        order = {k: trade[k] for k in ("account", "instrument", "side", "trader", "counterparty", "venue", "ts_event")}
        self._trade_count -= 1
        return order | {"order_id": f"O-{self._order_count:08d}", "type": "limit", "quantity": f"{size:.0f}",
                        "price": f"{price:.10f}".rstrip("0").rstrip("."), "locate_id": "L-1"}

    def opening_trades(self, ts_ns: int, count: int) -> Iterator[dict[str, object]]:
        """Yield trades that build the floor's positions, spread over accounts and instruments."""
        for i in range(count):
            a = i % len(self.accounts)
            menu = self._menu[a]
            yield self.trade(ts_ns + i * 1000, a, int(menu[(i // len(self.accounts)) % len(menu)]))


def _decimals(tick: float) -> int:
    text = f"{tick:.10f}".rstrip("0")
    return len(text.partition(".")[2])

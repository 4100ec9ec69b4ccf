"""Names of instruments where a file has no column of them, and what kind of instrument a name is."""

from __future__ import annotations

import re
from pathlib import Path

from app.files.reading import stem_of


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


#: words of file names that say what a file holds, not of what
KIND_WORDS = words("""
    quote quotes tick ticks trade trades aggtrade aggtrades print prints bar bars minute minutes hour daily second
    m1 m5 h1 d1 1m 5m 1h 1d 1s fx forex crypto equity equities stock stocks future futures spot perpetuals data
    market history hist bookticker book top level1 l1 bbo nbbo raw sample test export utc""")
#: whom a file is from
VENUES = words("""
    binance bybit coinbase kraken okx bitmex deribit bitstamp bitfinex huobi gateio oanda fxcm histdata truefx
    dukascopy lmax ebs polygon databento tardis algoseek iex ib ibkr lean cryptotick nasdaq nyse arca cme ice
    eurex xetra lse""")
FIAT = words("""
    USD EUR GBP JPY CHF AUD NZD CAD SEK NOK DKK PLN CZK HUF RON TRY ILS ZAR MXN BRL CLP COP PEN CNY CNH HKD SGD
    KRW TWD INR IDR THB MYR PHP VND RUB UAH AED SAR QAR KWD EGP NGN XAU XAG XPT XPD""")
COINS = words("""
    USDT USDC BUSD TUSD FDUSD DAI BTC XBT ETH BNB SOL XRP ADA DOGE DOT LTC BCH LINK AVAX MATIC TRX ETC XLM ATOM
    UNI AAVE ALGO NEAR FIL ICP APT ARB OP SHIB EOS XMR DASH ZEC XTZ""")
_DATE = re.compile(r"\d{2}|\d{4}|\d{6}|\d{8}|\d{4}-\d{2}(-\d{2})?|\d{2}h")


def pair_of(name: str) -> tuple[str, str] | None:
    """Return base and quote currency of a name of two known codes, a separator between them or none."""
    parts = re.split(r"[/_.:-]", name)
    if len(parts) == 2 and parts[1] in FIAT | COINS and re.fullmatch(r"[A-Z0-9]{2,12}", parts[0]):
        return (parts[0], parts[1]) if parts[0] in FIAT | COINS or "/" in name else None
    for code in sorted(FIAT | COINS, key=len, reverse=True):
        base = name.removesuffix(code)
        if base != name and base in FIAT | COINS and base != code:
            return base, code
    return None


def symbol_of(path: Path) -> str | None:
    """Return the instrument that a file's name says, if it says one alone.

    Words for what a file holds, venues and dates are left out. Of what is left one word is the name, or the one that is
    a pair of currencies. ``perp`` behind a pair makes it a perpetual.
    """
    words = [w for w in re.split(r"[ _.-]+", stem_of(path)) if w]
    left = [w.upper() for w in words if w.lower() not in KIND_WORDS | VENUES and not _DATE.fullmatch(w)]
    perpetual = "PERP" in left[1:]
    names = [w for w in left if w != "PERP"]
    pairs = [w for w in names if pair_of(w)]
    found = pairs if len(pairs) == 1 else names
    if len(found) != 1:
        return None
    return f"{found[0]}-PERP" if perpetual else found[0]

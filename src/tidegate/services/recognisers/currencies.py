"""How currencies are written, and their ISO 4217 codes."""

from __future__ import annotations

from tidegate.services.recognisers.lexicon import word_set

CODES = word_set(
    """
    AED ARS AUD BGN BHD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JOD JPY KES KRW KWD MAD
    MXN MYR NGN NOK NZD OMR PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD VND ZAR
    """
)
SYMBOLS = {
    "$": "USD",
    "¢": "USD",
    "£": "GBP",
    "€": "EUR",
    "¥": "JPY",
    "₹": "INR",
    "₽": "RUB",
    "₩": "KRW",
    "₪": "ILS",
    "₺": "TRY",
    "₴": "UAH",
    "₫": "VND",
    "₦": "NGN",
    "₱": "PHP",
    "฿": "THB",
}
"""A dollar sign alone is taken for the US dollar, `¥` for the yen."""
DOLLARS = {
    "US": "USD",
    "U.S.": "USD",
    "USD": "USD",
    "A": "AUD",
    "AU": "AUD",
    "C": "CAD",
    "CA": "CAD",
    "CAD": "CAD",
    "CDN": "CAD",
    "HK": "HKD",
    "MX": "MXN",
    "NT": "TWD",
    "NZ": "NZD",
    "R": "BRL",
    "S": "SGD",
}
"""What stands before a dollar sign to say whose dollar it is."""
NAMES = {
    "dollar": "USD",
    "us dollar": "USD",
    "u.s. dollar": "USD",
    "american dollar": "USD",
    "australian dollar": "AUD",
    "canadian dollar": "CAD",
    "hong kong dollar": "HKD",
    "new zealand dollar": "NZD",
    "singapore dollar": "SGD",
    "cent": "USD",
    "euro cent": "EUR",
    "euro": "EUR",
    "penny": "GBP",
    "pence": "GBP",
    "pound": "GBP",
    "pound sterling": "GBP",
    "british pound": "GBP",
    "renminbi": "CNY",
    "rouble": "RUB",
    "ruble": "RUB",
    "rupee": "INR",
    "swiss franc": "CHF",
    "yen": "JPY",
    "yuan": "CNY",
}
HUNDREDTHS = frozenset({"¢", "cent", "euro cent", "penny", "pence"})
SCALES = {"hundred": 2, "thousand": 3, "k": 3, "million": 6, "m": 6, "mm": 6, "mn": 6, "billion": 9, "b": 9, "bn": 9}
SCALES |= {"trillion": 12, "tn": 12}
"""Powers of ten."""

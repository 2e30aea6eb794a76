"""Sums of money are found where a currency stands beside a number, and mean what they say."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.services.recognisers.money import find_money


def found(text: str) -> list[tuple[str, str, str]]:
    return [(text[start:end], value["amount"], value["currency"]) for start, end, value in find_money(text)]


@pytest.mark.parametrize(
    ("text", "surface", "amount", "currency"),
    [
        ("worth USD 3.5 million today", "USD 3.5 million", "3500000", "USD"),
        ("a £1.2bn deal", "£1.2bn", "1200000000", "GBP"),
        ("just 50 cents", "50 cents", "0.50", "USD"),
        ("50¢ each", "50¢", "0.50", "USD"),
        ("20 pence", "20 pence", "0.20", "GBP"),
        ("für 15,50 €", "15,50 €", "15.50", "EUR"),
        ("€1.234,50 in all", "€1.234,50", "1234.50", "EUR"),
        ("1.250 € a month", "1.250 €", "1250", "EUR"),
        ("it cost 12 500 € then", "12 500 €", "12500", "EUR"),
        ("€12 500 a year", "€12 500", "12500", "EUR"),
        ("CHF 1'234.50", "CHF 1'234.50", "1234.50", "CHF"),
        ("₹1,00,000", "₹1,00,000", "100000", "INR"),
        ("paid $100.", "$100", "100", "USD"),
        ("a par value of $.01", "$.01", "0.01", "USD"),
        ("at $0.0001", "$0.0001", "0.0001", "USD"),
        ("for $12.5", "$12.5", "12.50", "USD"),
        ("of $1.0 million", "$1.0 million", "1000000", "USD"),
        ("a $10-million hole", "$10-million", "10000000", "USD"),
        ("$5MM in all", "$5MM", "5000000", "USD"),
        ("U.S. $ 10,000", "U.S. $ 10,000", "10000", "USD"),
        ("US$5m", "US$5m", "5000000", "USD"),
        ("C$3k", "C$3k", "3000", "CAD"),
        ("NZ$ 20", "NZ$ 20", "20", "NZD"),
        ("5 million Canadian dollars", "5 million Canadian dollars", "5000000", "CAD"),
        ("$5 CAD", "$5 CAD", "5", "CAD"),
        ("a million dollars", "a million dollars", "1000000", "USD"),
        ("half a million euros", "half a million euros", "500000", "EUR"),
        ("two dollars", "two dollars", "2", "USD"),
        ("3 million pounds", "3 million pounds", "3000000", "GBP"),
        ("30 pounds sterling", "30 pounds sterling", "30", "GBP"),
        ("a loss of $(5.2) million", "$(5.2) million", "-5200000", "USD"),
        ("fell to -$5", "-$5", "-5", "USD"),
        ("¥1,000", "¥1,000", "1000", "JPY"),
    ],
)
def test_a_sum_is_found_and_understood(text: str, surface: str, amount: str, currency: str) -> None:
    assert found(text) == [(surface, amount, currency)]


@pytest.mark.parametrize(
    "text",
    [
        "3 pounds",  # may be a weight
        "$5x",
        "F$5",  # a dollar, but whose?
        "Form 10-K",
        "a dollar store",
        "the euro zone",
        "in 2019",
        "100 people",
        "Section 5.1",
        "$",
        "$9" + "9" * 60,
        "USD",
        "MUSD5",
    ],
)
def test_what_is_no_sum_is_left(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$5-7 million", [("$5", "5000000", "USD"), ("7 million", "7000000", "USD")]),
        ("$5 million to $7 million", [("$5 million", "5000000", "USD"), ("$7 million", "7000000", "USD")]),
        ("between $5 and $7 million", [("$5", "5000000", "USD"), ("$7 million", "7000000", "USD")]),
        ("10 to 15 euros", [("10", "10", "EUR"), ("15 euros", "15", "EUR")]),
        ("£3.5m–£4m", [("£3.5m", "3500000", "GBP"), ("£4m", "4000000", "GBP")]),
        ("$500 to $1 million", [("$500", "500", "USD"), ("$1 million", "1000000", "USD")]),
        ("$5 and $7 million", [("$5", "5", "USD"), ("$7 million", "7000000", "USD")]),
        ("$771,293 and $502,860", [("$771,293", "771293", "USD"), ("$502,860", "502860", "USD")]),
        ("100 EUR 20", [("EUR 20", "20", "EUR")]),
    ],
)
def test_a_range_gives_both_ends(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert found(text) == expected


def test_a_currency_in_a_cell_of_its_own_counts_for_the_next() -> None:
    assert found("Revenue | $ | 19,984 | $ | (1,230 | )") == [("19,984", "19984", "USD"), ("1,230", "-1230", "USD")]


def test_only_the_part_asked_for_is_read() -> None:
    text = "$1 $2 $3"
    assert [text[start:end] for start, end, _ in find_money(text, 3, 5)] == ["$2"]


@given(st.decimals(min_value="0.01", max_value=10**12, places=2), st.sampled_from(["USD", "EUR", "GBP", "CHF"]))
def test_every_amount_comes_back_as_it_was_written(amount: Decimal, currency: str) -> None:
    text = f"They paid {currency} {amount:,} at once."
    [(surface, read, unit)] = found(text)
    assert (surface, Decimal(read), unit) == (f"{currency} {amount:,}", amount, currency)


@given(st.text(alphabet="$€£1290.,'() -|USDEURkmbn\nmilodars\u2013", max_size=80))
def test_no_text_breaks_the_rules_or_their_offsets(text: str) -> None:
    end = 0
    for start, stop, value in find_money(text):
        assert end <= start < stop
        assert text[start:stop].strip() == text[start:stop]
        assert str(Decimal(value["amount"])) is not None
        end = stop


def test_a_sum_of_many_digits_is_exact() -> None:
    [(_, _, value)] = find_money("$999999999999999999999999999999999999999 trillion")
    assert value == {"amount": "9" * 39 + "0" * 12, "currency": "USD"}

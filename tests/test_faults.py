"""The fault kit: each fault as a plain client sees it, over sockets and without, and schedules that replay."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from tidegate.resilience import faults
from tidegate.resilience.failures import retry_after
from tidegate.resilience.faults import (
    FAULTS,
    Behaviour,
    Delay,
    During,
    FaultyChat,
    FaultyServer,
    FaultyService,
    FaultyTransport,
    Reply,
    RetryAfter,
    Schedule,
)
from tidegate.testing import ManualClock

Carrier = Literal["server", "transport"]
NOW = 1_750_000_000.0


@pytest.fixture(params=["server", "transport"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    carrier: Carrier = request.param
    return carrier


@asynccontextmanager
async def client_of(
    carrier: Carrier, *script: Behaviour, patience: float = 0.2, **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, FaultyService]]:
    """A plain client; without sockets no second of it is real."""
    clock = ManualClock(NOW, auto=True)
    if carrier == "transport":
        transport = FaultyTransport(script, clock=clock, **options)
        async with httpx.AsyncClient(base_url="http://api.example", transport=transport, timeout=patience) as client:
            yield client, transport
    else:
        with FaultyServer(script, clock=clock, **options) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=patience, trust_env=False) as client:
                yield client, server


async def test_a_healthy_service_answers_with_what_was_asked(carrier: Carrier) -> None:
    async with client_of(carrier) as (client, service):
        answer = await client.post("/enrich/Nor%2Fwich?by=id", json={"text": "Norwich"}, headers={"X-Two": "a"})
    assert answer.json() == {"path": "/enrich/Nor%2Fwich?by=id", "asked": {"text": "Norwich"}}
    (request,) = service.requests
    assert (request.method, request.json, request.headers["x-two"]) == ("POST", {"text": "Norwich"}, "a")


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 500, 503, 599])
async def test_a_status_is_answered(carrier: Carrier, status: int) -> None:
    async with client_of(carrier, status) as (client, _):
        assert (await client.get("/")).status_code == status
        assert (await client.get("/")).status_code == 200


async def test_a_hanging_service_never_answers(carrier: Carrier) -> None:
    async with client_of(carrier, "hang") as (client, service):
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/")
        assert (await client.get("/")).is_success
        assert service.most_at_once == 1


async def test_a_service_that_stalls_stops_in_the_middle(carrier: Carrier) -> None:
    async with client_of(carrier, "stall") as (client, _), client.stream("GET", "/") as answer:
        parts = aiter(answer.aiter_raw())
        assert 0 < len(await anext(parts)) < int(answer.headers["content-length"])
        with pytest.raises(httpx.ReadTimeout):
            await anext(parts)


async def test_a_connection_is_reset_before_the_answer(carrier: Carrier) -> None:
    async with client_of(carrier, "reset") as (client, _):
        with pytest.raises(httpx.ReadError):
            await client.get("/")
        assert (await client.get("/")).is_success


async def test_half_a_body_is_not_taken_for_a_whole_one(carrier: Carrier) -> None:
    async with client_of(carrier, "half body") as (client, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
        assert (await client.get("/")).is_success


async def test_garbage_is_no_json_and_a_wrong_shape_is(carrier: Carrier) -> None:
    async with client_of(carrier, "garbage", "wrong shape") as (client, _):
        garbage = await client.get("/")
        assert garbage.headers["content-type"] == "application/json"
        with pytest.raises(json.JSONDecodeError):
            garbage.json()
        assert isinstance((await client.get("/")).json(), list)


async def test_a_huge_body_does_not_say_how_huge_it_is(carrier: Carrier) -> None:
    async with client_of(carrier, "huge body", patience=20.0) as (client, _):
        async with client.stream("GET", "/") as answer:
            assert "content-length" not in answer.headers
            read = sum([len(part) async for part in answer.aiter_raw()])
        assert read > 16_000_000
        assert (await client.get("/")).is_success


async def test_a_slow_drip_keeps_a_client_busy_for_long() -> None:
    clock = ManualClock(auto=True)
    transport = FaultyTransport(["slow drip"], clock=clock)
    async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
        answer = await client.get("http://api.example/")
    assert clock.monotonic() == len(answer.content) > 20


async def test_a_reply_drips_over_a_socket_too() -> None:
    async with client_of("server", Reply(body=b"12345", every=0.02)) as (client, _), client.stream("GET", "/") as drip:
        parts = [part async for part in drip.aiter_raw()]
    assert b"".join(parts) == b"12345"
    assert len(parts) > 1


async def test_a_delay_passes_before_the_answer() -> None:
    clock = ManualClock(auto=True)
    transport = FaultyTransport([Delay(2.0), Delay(2.0)], clock=clock)
    async with httpx.AsyncClient(transport=transport, timeout=3.0) as patient:
        assert (await patient.get("http://api.example/")).is_success
        assert clock.monotonic() == 2.0
        with pytest.raises(httpx.ReadTimeout):
            await patient.get("http://api.example/", timeout=1.0)
    async with client_of("server", Delay(0.01)) as (client, _):
        assert (await client.get("/")).is_success


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_pause_is_asked_for_in_both_forms(carrier: Carrier, as_date: bool) -> None:
    async with client_of(carrier, RetryAfter(7.0, as_date=as_date), RetryAfter(7.0, status=503)) as (client, _):
        answer = await client.get("/")
        assert (await client.get("/")).status_code == 503
    assert answer.status_code == 429
    assert retry_after(answer.headers, ManualClock(NOW)) == 7.0
    assert answer.headers["retry-after"].endswith("GMT") is as_date


async def test_redirects_lead_round_and_away(carrier: Carrier) -> None:
    round_and_round: list[Behaviour] = ["redirect loop"] * 30
    async with client_of(carrier, "redirect away", *round_and_round) as (client, service):
        away = (await client.get("/")).next_request
        assert away is not None
        assert away.url.host == "elsewhere.invalid"
        with pytest.raises(httpx.TooManyRedirects):
            await client.get("/here?q=1", follow_redirects=True)
        assert {request.path for request in service.requests[1:]} == {"/here?q=1"}


async def test_an_answer_of_your_own_is_sent_as_it_is_and_broken_as_any(carrier: Carrier) -> None:
    page = Reply(body=b"<p>Hello", headers={"Content-Type": "text/html"})
    async with client_of(carrier, 200, Reply(201, headers={"X": "1"}), Reply(cut=3), answer=lambda _: page) as (
        client,
        _,
    ):
        healthy, altered = await client.get("/"), await client.get("/")
        assert (healthy.text, healthy.headers["content-type"]) == ("<p>Hello", "text/html")
        assert (altered.status_code, altered.text, altered.headers["x"]) == (201, "<p>Hello", "1")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")


async def test_a_service_is_down_until_it_is_up(carrier: Carrier) -> None:
    async with client_of(carrier, 404) as (client, service):
        service.down(500)
        assert [(await client.get("/")).status_code for _ in range(2)] == [500, 500]
        service.up()
        service.follow([418])
        assert [(await client.get("/")).status_code for _ in range(2)] == [418, 200]


async def test_the_port_of_a_server_can_be_closed_and_opened() -> None:
    with FaultyServer() as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            server.down("refuse")
            with pytest.raises(httpx.ConnectError):
                await client.get("/")
            server.up()
            assert (await client.get("/")).is_success


async def test_the_most_requests_at_once_are_counted(carrier: Carrier) -> None:
    async with client_of(carrier, *[Delay(0.05)] * 6) as (client, service):
        limit = asyncio.Semaphore(3)

        async def ask() -> None:
            async with limit:
                await client.get("/")

        await asyncio.gather(*(ask() for _ in range(6)))
        assert (service.most_at_once, len(service.requests)) == (3, 6)


def test_another_process_can_call_the_server_and_its_requests_are_waited_for() -> None:
    ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"
    with FaultyServer() as server:
        process = subprocess.Popen([sys.executable, "-c", ask, f"{server.url}/from-afar"])
        server.wait_for(1)
        assert server.requests[0].path == "/from-afar"
        assert process.wait() == 0
        with pytest.raises(TimeoutError, match="1 requests within 0"):
            server.wait_for(2, timeout=0.0)


async def test_a_request_in_chunks_and_one_for_the_head_alone_are_understood() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"text": '
        yield b'"Norwich"}'

    async with client_of("server") as (client, server):
        assert (await client.post("/", content=chunks())).json()["asked"] == {"text": "Norwich"}
        assert (await client.head("/")).content == b""
        assert (await client.get("/")).is_success
    assert server.requests[0].body == b'{"text": "Norwich"}'


async def test_any_asgi_server_can_serve_it_and_closes_where_it_cannot_reset() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    service = FaultyService([200, "reset"])
    transport = httpx.ASGITransport(service)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as client:
        assert (await client.get("/there?x=1")).json()["path"] == "/there?x=1"
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await service(scope, receive, send)
    assert [(message["type"], message["headers"]) for message in sent] == [
        ("http.response.start", [(b"content-length", b"1")])
    ]


# Schedules.


def test_a_schedule_goes_by_outages_then_by_its_script_then_by_chance_then_by_the_rest() -> None:
    schedule = Schedule([500, "reset"], then=418, outages=[During(10.0, 20.0), During(15.0, 30.0, "hang")])
    assert [schedule.at(number, 0.0) for number in (1, 2, 3, 4)] == [500, "reset", 418, 418]
    assert [schedule.at(1, seconds) for seconds in (9.9, 10.0, 19.9, 20.0, 29.9, 30.0)] == [
        500,
        503,
        503,
        "hang",
        "hang",
        500,
    ]
    by_chance = Schedule([500], seed=7, rate=1.0, faults=["hang"])
    assert [by_chance.at(number, 0.0) for number in (1, 2, 3)] == [500, "hang", "hang"]


behaviours = (
    st.sampled_from([200, *FAULTS]) | st.builds(Delay, st.floats(0, 9)) | st.builds(RetryAfter, st.floats(0, 9))
)
schedules = st.builds(
    Schedule,
    st.lists(behaviours, max_size=4),
    then=behaviours,
    outages=st.lists(st.builds(During, st.floats(0, 9), st.floats(10, 99), behaviours), max_size=2),
    seed=st.none() | st.integers(),
    rate=st.floats(0, 1),
    faults=st.just(FAULTS) | st.lists(behaviours, max_size=3),
)


@given(schedules, st.integers(1, 50), st.floats(0, 100))
def test_what_a_schedule_prints_is_the_schedule(schedule: Schedule, number: int, seconds: float) -> None:
    again: Schedule = eval(repr(schedule), dict(vars(faults)))  # noqa: S307 - that it can be is what is tested
    assert again == schedule
    assert again.at(number, seconds) == schedule.at(number, seconds)


def test_chance_is_the_same_on_every_machine() -> None:
    """A change of these would make other schedules of those that people have noted."""
    assert [Schedule(seed=7).at(number, 0.0) for number in range(1, 9)] == [
        500,
        200,
        "half body",
        "wrong shape",
        200,
        200,
        "half body",
        "half body",
    ]


def test_about_as_many_requests_fail_as_the_rate_says() -> None:
    schedule = Schedule(seed=1, rate=0.25)
    met = [schedule.at(number, 0.0) for number in range(1, 2001)]
    assert 400 < sum(behaviour != 200 for behaviour in met) < 600
    assert set(FAULTS) == set(met) - {200}


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Schedule(rate=rate)


QUICK: tuple[Behaviour, ...] = tuple(each for each in FAULTS if each not in ("hang", "stall", "slow drip", Delay(1.0)))


async def seen_by_a_client(carrier: Carrier, schedule: Schedule) -> tuple[list[str], list[Behaviour]]:
    seen = list[str]()
    async with client_of(carrier, patience=20.0) as (client, service):
        service.follow(schedule)
        for _ in range(20):
            try:
                answer = await client.get("/")
                sight = f"{answer.status_code} {len(answer.content)}"
            except httpx.TransportError as error:
                sight = type(error).__name__
            seen.append(sight)
        return seen, service.behaviours


async def test_the_same_seed_brings_a_client_the_same_again(carrier: Carrier) -> None:
    first, met = await seen_by_a_client(carrier, Schedule(seed=7, faults=QUICK))
    assert (await seen_by_a_client(carrier, Schedule(seed=7, faults=QUICK))) == (first, met)
    assert (await seen_by_a_client(carrier, Schedule(met))) == (first, met)
    assert (await seen_by_a_client(carrier, Schedule(seed=8, faults=QUICK))) != (first, met)


async def test_sockets_and_their_stand_in_look_the_same_to_a_client() -> None:
    schedule = Schedule(QUICK)
    assert await seen_by_a_client("server", schedule) == await seen_by_a_client("transport", schedule)


def test_a_server_can_be_stopped_at_any_time_and_started_again() -> None:
    server = FaultyServer([503])
    server.stop()
    server.up()
    with pytest.raises(RuntimeError, match="start it first"):
        server.down("refuse")
    server.start()
    url = server.url
    with pytest.raises(RuntimeError, match="is being served already"):
        server.start()
    assert httpx.get(url, trust_env=False).status_code == 503
    server.stop()
    server.stop()
    with server:
        assert httpx.get(url, trust_env=False).status_code == 200
        server.down("refuse")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


async def test_an_outage_begins_and_ends_by_the_clock() -> None:
    clock = ManualClock()
    with FaultyServer(Schedule(outages=[During(10.0, 20.0)]), clock=clock) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            for status in (200, 200, 503, 200):
                assert (await client.get("/")).status_code == status
                clock.advance(7.0)
    assert [request.at for request in server.requests] == [0.0, 7.0, 14.0, 21.0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("hnag", "'hnag' is no behaviour; there are 'hang', 'stall'"),
        (None, "None is no behaviour; give a status, a word"),
        (3.5, "3.5 is no behaviour"),
        (99, "99: a status is a number from 100 to 999"),
        (0, "0: a status"),
        (True, "True: a status"),
    ],
)
def test_what_is_no_behaviour_is_refused_wherever_it_is_given(wrong: Any, told: str) -> None:
    given: list[Callable[[], object]] = [
        lambda: Schedule([200, wrong]),
        lambda: Schedule(then=wrong),
        lambda: Schedule(faults=[wrong], seed=1),
        lambda: During(0.0, 1.0, wrong),
        lambda: FaultyServer([wrong]),
        lambda: FaultyTransport([wrong]),
        lambda: FaultyChat([wrong]),
        lambda: FaultyService().down(wrong),
    ]
    for give in given:
        with pytest.raises((ValueError, TypeError), match=re.escape(told)):
            give()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Delay(-1),
        lambda: Delay(math.nan),
        lambda: Delay(math.inf),
        lambda: RetryAfter(math.inf, as_date=True),
        lambda: RetryAfter(1.0, status=200),
        lambda: Reply(99),
        lambda: Reply(body=cast("bytes", "text")),
        lambda: Reply(json=object()),
        lambda: Reply(headers={"X": "\N{SNOWMAN}"}),
        lambda: Reply(headers={"\N{SNOWMAN}": "x"}),
        lambda: Reply(headers={"X": "a\r\nY: b"}),
        lambda: Reply(cut=-3),
        lambda: Reply(body=b"abc", cut=4),
        lambda: Reply(every=-1.0),
        lambda: During(5, 1),
        lambda: During(5, 5),
        lambda: Schedule(outages=cast("Any", [503])),
    ],
)
def test_a_behaviour_that_would_not_come_as_it_is_said_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


@pytest.mark.parametrize("script", ["hang", b"hang", None, 503])
def test_what_is_no_script_is_refused(script: Any) -> None:
    for give in (FaultyServer, FaultyTransport, FaultyChat, Schedule):
        with pytest.raises(TypeError, match="is no script; give a list"):
            give(script)


async def test_a_function_of_the_request_that_returns_no_behaviour_is_told() -> None:
    wrong: Any = lambda _: "hnag"  # noqa: E731
    async with httpx.AsyncClient(transport=FaultyTransport(wrong)) as client:
        with pytest.raises(ValueError, match="'hnag' is no behaviour"):
            await client.get("http://api.example/")
    with pytest.raises(ValueError, match="'hnag' is no behaviour"):
        await FaultyChat(wrong).ainvoke("?")
    server = FaultyServer(wrong).start()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
    with pytest.raises(ValueError, match="'hnag' is no behaviour"):
        server.__exit__(None, None, None)


async def test_a_cut_behind_the_end_of_the_healthy_body_is_told() -> None:
    async with httpx.AsyncClient(transport=FaultyTransport([Reply(cut=1000)])) as client:
        with pytest.raises(ValueError, match="the body ends before the cut"):
            await client.get("http://api.example/")


async def test_a_long_pause_is_asked_for_in_digits(carrier: Carrier) -> None:
    async with client_of(carrier, RetryAfter(1_234_567.5)) as (client, _):
        assert (await client.get("/")).headers["retry-after"] == "1234567.5"


# The chat model.


async def heard(model: FaultyChat) -> str:
    return "".join([part.text async for part in model.astream("Who is there?")])


def chat(*script: Behaviour, says: str = "It is only me.") -> FaultyChat:
    return FaultyChat(script, says=says, clock=ManualClock(NOW, auto=True))


def test_a_script_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no end; give Schedule\(then=…\)"):
        FaultyServer(itertools.repeat(503))


async def test_a_healthy_model_says_its_words_at_once_or_one_by_one() -> None:
    model = chat()
    assert (await model.ainvoke("Who is there?")).text == "It is only me."
    assert await heard(model) == "It is only me."
    assert [prompt.text for prompt in model.course.requests] == ["Who is there?"] * 2
    answer = await FaultyChat(says=lambda prompt: prompt.upper()).ainvoke("echo")
    assert answer.text == "ECHO"
    assert answer.usage_metadata == {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def test_blocking_code_can_ask_the_model_too() -> None:
    model = chat(200, 503)
    assert model.invoke("Who is there?").text == "It is only me."
    with pytest.raises(httpx.HTTPStatusError):
        model.invoke("Who is there?")


async def test_blocking_code_can_ask_the_model_inside_a_running_loop() -> None:
    model = chat(200, 503)
    assert model.invoke("Who is there?").text == "It is only me."
    with pytest.raises(httpx.HTTPStatusError):
        model.invoke("Who is there?")
    assert [part.text for part in model.stream("Who is there?") if part.text] == ["It ", "is ", "only ", "me."]


def test_a_model_streams_half_to_blocking_code_and_stops() -> None:
    words = chat("half body").stream("?")
    assert [next(words).text, next(words).text] == ["It ", "is "]
    with pytest.raises(httpx.RemoteProtocolError):
        next(words)


def test_a_stream_to_blocking_code_can_be_left_in_the_middle() -> None:
    model = chat("stall")
    stream = model.stream("?")
    assert next(stream).text == "It "
    stream.close()  # type: ignore[attr-defined]
    model.invoke("?")
    assert model.course.most_at_once == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "faulty chat"]


async def test_a_model_drives_an_agent() -> None:
    def tool(question: str) -> str:
        """Answer."""
        raise NotImplementedError

    agent = create_agent(chat(200, 503), [tool])
    answer = await agent.ainvoke({"messages": [HumanMessage("Who is there?")]})
    assert answer["messages"][-1].text == "It is only me."
    with pytest.raises(httpx.HTTPStatusError):
        await agent.ainvoke({"messages": [HumanMessage("Who is there?")]})


class Caller(BaseModel):
    name: str


async def test_a_model_gives_structured_output_of_the_json_that_it_says() -> None:
    model = chat(200, 200, "garbage", says='{"name": "Ada"}')
    assert await model.with_structured_output(Caller).ainvoke("?") == Caller(name="Ada")
    assert await model.with_structured_output({"title": "caller"}).ainvoke("?") == {"name": "Ada"}
    with pytest.raises(json.JSONDecodeError):
        await model.with_structured_output(Caller).ainvoke("?")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (401, httpx.HTTPStatusError),
        (503, httpx.HTTPStatusError),
        (Reply(418), httpx.HTTPStatusError),
        ("reset", ConnectionResetError),
        ("half body", httpx.RemoteProtocolError),
        ("garbage", json.JSONDecodeError),
        ("redirect loop", httpx.TooManyRedirects),
        ("redirect away", httpx.HTTPStatusError),
    ],
)
async def test_a_model_fails_as_the_client_of_a_provider_does(behaviour: Behaviour, error: type[Exception]) -> None:
    model = chat(behaviour, behaviour)
    with pytest.raises(error):
        await model.ainvoke("Who is there?")
    with pytest.raises(error):
        await heard(model)
    assert await heard(model) == "It is only me."


async def test_a_model_asks_for_a_pause_as_http_does() -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await chat(RetryAfter(7.0, as_date=True)).ainvoke("?")
    assert caught.value.response.status_code == 429
    assert retry_after(caught.value.response.headers, ManualClock(NOW)) == 7.0


@pytest.mark.parametrize("behaviour", ["half body", "stall"])
async def test_a_model_streams_half_and_stops(behaviour: Behaviour) -> None:
    words = []

    async def listen() -> None:
        async for part in chat(behaviour).astream("?"):
            words.append(part.text)  # noqa: PERF401 - it is broken off

    with pytest.raises((httpx.RemoteProtocolError, TimeoutError)):
        await asyncio.wait_for(listen(), 0.05)
    assert words == ["It ", "is "]


async def test_a_hanging_model_counts_as_asked_until_it_is_left() -> None:
    model = chat("hang")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(model.ainvoke("?"), 0.05)
    await model.ainvoke("?")
    assert (len(model.course.requests), model.course.most_at_once) == (2, 1)


async def test_a_model_answers_what_nobody_can_use() -> None:
    model = chat("wrong shape", "huge body", Reply(body=b"this"))
    assert (await model.ainvoke("?")).text == ""
    assert len((await model.ainvoke("?")).text) > 5_000_000
    assert (await model.ainvoke("?")).text == "this"


async def test_a_model_says_the_json_of_a_reply_and_refuses_what_it_cannot_do() -> None:
    model = chat(Reply(json=["a"]), Reply(cut=1), 100, Reply(418, headers={"X": "\xe9"}))
    assert (await model.ainvoke("?")).text == '["a"]'
    with pytest.raises(ValueError, match="knows no cut and every"):
        await model.ainvoke("?")
    for status in (100, 418):
        with pytest.raises(httpx.HTTPStatusError, match=str(status)):
            await model.ainvoke("?")


async def test_a_model_takes_its_time_on_the_clock() -> None:
    clock = ManualClock(auto=True)
    model = FaultyChat([Delay(3.0), "slow drip"], says="one two", clock=clock)
    await model.ainvoke("?")
    assert clock.monotonic() == 3.0
    await model.ainvoke("?")
    assert clock.monotonic() == 5.0

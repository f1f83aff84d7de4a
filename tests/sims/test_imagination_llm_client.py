"""One endpoint: limits kept, what may get better tried again, silence ended, the key never shown."""

import asyncio
import time

import pytest

from sims.imagination.llm_client import Endpoint, EndpointFailure, Reply
from sims.imagination.llm_models import Model
from tests.sims.chat_server import KEY, said

pytest.importorskip("openai")


def _ask(server, count=1, **settings):
    """Ask a model `count` times at once; the replies, or the failures."""
    values = {"api_key_env": "PLAYED_KEY", "first_wait_seconds": 0.01, "retries": 2} | settings
    model = Model("alpha", "f", server.url, "alpha-7b", **values)

    async def all_at_once():
        async with Endpoint(model) as endpoint:
            asks = [endpoint.ask([{"role": "user", "content": "Say it."}], None) for _ in range(count)]
            return await asyncio.gather(*asks, return_exceptions=True)

    return asyncio.run(all_at_once())


def test_requests_per_minute_are_kept(serve):
    server = serve(lambda body, count: (200, {}, said("yes"), 0))
    began = time.monotonic()
    _ask(server, count=6, requests_per_minute=1200, concurrency=6)
    assert len(server.requests) == 6
    assert time.monotonic() - began > 5 * 0.05


def test_retry_after_holds_back_everybody(serve):
    """One reply of 429, and none of those who have their turn after it asks before the time is over."""

    def play(body, count):
        return (429, {"Retry-After": "0.6"}, {}, 0) if count == 1 else (200, {}, said("yes"), 0.4)

    server = serve(play)
    assert all(isinstance(reply, Reply) for reply in _ask(server, count=8, concurrency=4))
    starts = [moment for moment, _, _ in server.requests]
    assert len(starts) == 9
    assert sum(start - starts[0] < 0.6 for start in starts) <= 4


def test_an_endpoint_that_asks_to_wait_for_an_hour_is_given_up(serve):
    server = serve(lambda body, count: (429, {"Retry-After": "3600"}, {}, 0))
    (failure,) = _ask(server)
    assert isinstance(failure, EndpointFailure)
    assert failure.hopeless
    assert "asks to wait 3600 s" in str(failure)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "requests", "hopeless"),
    [(500, None, 3, False), (429, None, 3, False), (429, "insufficient_quota", 1, True), (401, None, 1, True),
     (404, None, 1, True), (400, None, 1, False), (408, None, 3, False)],
)  # fmt: skip
def test_only_what_may_get_better_is_tried_again(serve, status, code, requests, hopeless):
    error = {"error": {"message": f"not you, Bearer {KEY}! " + "x" * 999, "code": code}}
    server = serve(lambda body, count: (status, {}, error, 0))
    (failure,) = _ask(server)
    assert isinstance(failure, EndpointFailure)
    assert (len(server.requests), failure.hopeless) == (requests, hopeless)
    assert str(status) in str(failure)
    assert "[key]" in str(failure)
    assert failure.__cause__ is None
    assert failure.__suppress_context__
    assert len(str(failure)) < 300


def test_silence_is_a_time_out_of_the_whole_reply(serve):
    server = serve(lambda body, count: (200, {}, said("late"), 30.0))
    began = time.monotonic()
    (failure,) = _ask(server, timeout_seconds=0.1, retries=1)
    assert isinstance(failure, EndpointFailure)
    assert "tried 2 times" in str(failure)
    assert time.monotonic() - began < 20


def test_a_reply_that_trickles_in_times_out_as_well(serve):
    server = serve(lambda body, count: (200, {}, said("slow"), 0))
    server.seconds_a_byte = 0.01  # 300 bytes
    (failure,) = _ask(server, timeout_seconds=0.3, retries=0)
    assert isinstance(failure, EndpointFailure)
    assert "TimeoutError" in str(failure)


def test_tokens_that_the_endpoint_does_not_count_are_estimated(serve):
    server = serve(lambda body, count: (200, {}, said("12345678", usage=None), 0))
    (reply,) = _ask(server)
    assert (reply.input_tokens, reply.output_tokens, reply.tokens_estimated) == (2, 2, True)
    (_, _, body), *_ = server.requests
    assert "temperature" not in body
    assert body["max_tokens"] == 1000


def test_half_a_surrogate_pair_in_a_reply_can_be_sent_back(serve):
    server = serve(lambda body, count: (200, {}, said("\ud800!"), 0))
    (reply,) = _ask(server)
    assert reply.text == "?!"

"""Asking one chat endpoint: retries, waiting, time-outs, a rate limit, tokens, and a key that shows up nowhere.

The official client library sends the requests; what is tried again and when is decided here, so that every model of a
study is treated alike. Whatever comes from the endpoint, replies and error texts, passes through `redacted` before
anything else sees it, since some endpoints echo the key that they were sent.
"""

import asyncio
import email.utils
import importlib
import importlib.util
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sims.imagination.llm_models import Model
from theory.console import Refusal

Messages = Sequence[Mapping[str, str]]

LONGEST_WAIT_SECONDS = 60.0  # between two tries, unless the endpoint asks for more
LONGEST_RETRY_AFTER_SECONDS = 600.0  # an endpoint that asks for more than this is given up for now
CHARACTERS_PER_TOKEN = 4.0  # rough, and used only where an endpoint does not say how many tokens it counted
_TRIED_AGAIN = {408, 409, 425, 429}  # and every status from 500 on
_REFUSED_BY_FILTER = {"content_filter", "content_policy_violation"}
_NEVER_BETTER = {"insufficient_quota", "billing_hard_limit_reached"}
_ECHO = 8  # characters of the key in a row that are taken for an echo of it
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Reply:
    """What an endpoint said. `finish_reason` is its own word, or `content_filter` where it refused the request."""

    text: str
    refusal: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    tokens_estimated: bool
    model: str  # what the endpoint says it is
    tries: int


class EndpointFailure(Exception):
    """A request that got no reply. `hopeless` if the next request to this model would fare no better."""

    def __init__(self, message: str, *, hopeless: bool = False):
        super().__init__(message)
        self.hopeless = hopeless


def client_library() -> Any:
    """The package openai, an optional extra; raises Refusal where it is not installed."""
    if importlib.util.find_spec("openai") is None:
        raise Refusal("asking models needs the package openai; install loss-threshold with the extra `llm`")
    return importlib.import_module("openai")


def redacted(text: str, key: str | None) -> str:
    """`text` with every run of 8 or more characters of the key replaced by [key].

    >>> redacted("wrong key: secret-0123456789, or secret-0...", "secret-0123456789")
    'wrong key: [key], or [key]...'
    """
    if not key or not any(key[start : start + _ECHO] in text for start in range(len(key) - _ECHO + 1)):
        return text
    pieces, position = [], 0
    while position < len(text):
        length = _ECHO
        if text[position : position + length] not in key or position + length > len(text):
            pieces.append(text[position])
            position += 1
            continue
        while position + length < len(text) and text[position : position + length + 1] in key:
            length += 1
        pieces.append("[key]")
        position += length
    return "".join(pieces)


def wait_seconds(model: Model, failures: int, retry_after: float | None, jitter: float) -> float:
    """How long to wait after so many failures: what the endpoint asks for, or a doubling wait times 1/2 ... 1.

    `jitter` is uniform on [0, 1): requests that failed together do not come back together.
    """
    if retry_after is not None:
        return retry_after + jitter * model.first_wait_seconds
    return min(LONGEST_WAIT_SECONDS, model.first_wait_seconds * 2 ** (failures - 1)) * (0.5 + 0.5 * jitter)


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """What the headers Retry-After-Ms or Retry-After (seconds or a date) ask for; None if they ask for nothing."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if seconds >= 0:  # not NaN either
            return seconds
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - now)


class RateLimit:
    """Starts of requests at least 60 / requests_per_minute seconds apart, and none while they are put off."""

    def __init__(self, requests_per_minute: float):
        self._apart = 60.0 / requests_per_minute
        self._next = -math.inf

    async def turn(self) -> None:
        """Wait for one's turn."""
        while (left := self._next - time.monotonic()) > 0:
            await asyncio.sleep(left)
        self._next = time.monotonic() + self._apart

    def put_off(self, seconds: float) -> None:
        """Let nobody start for so long: the endpoint has asked all of us to wait."""
        self._next = max(self._next, time.monotonic() + seconds)


class Endpoint:
    """One model, ready to be asked; an asynchronous context manager. At most `concurrency` requests are in flight."""

    def __init__(self, model: Model, concurrency: int | None = None):
        openai = client_library()
        self.model = model
        self._library_error = openai.OpenAIError
        self._key = model.api_key()
        self._limit = RateLimit(model.requests_per_minute)
        self._places = asyncio.Semaphore(concurrency or model.concurrency)
        # The library takes the identifiers of an OpenAI account from the environment: no business of other endpoints.
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=model.base_url,
            max_retries=0,
            timeout=model.timeout_seconds,
            default_headers={"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit},
        )

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, messages: Messages, temperature: float | None) -> Reply:
        """The model's reply; raises EndpointFailure when the retries are used up or would not help."""
        async with self._places:
            for tries in range(1, self.model.retries + 2):
                await self._limit.turn()
                try:
                    return await self._ask_once(messages, temperature, tries)
                except (self._library_error, TimeoutError, ValueError) as error:
                    outcome = self._wait_or_fail(error, tries)
                if isinstance(outcome, Reply):
                    return outcome
                await asyncio.sleep(outcome)
        raise AssertionError("the last try returns or raises")

    async def _ask_once(self, messages: Messages, temperature: float | None, tries: int) -> Reply:
        settings: dict[str, Any] = {self.model.token_field: self.model.max_tokens}
        if temperature is not None:
            settings["temperature"] = temperature
        # The library's own time-out is between two bytes; this one is for the whole reply.
        async with asyncio.timeout(self.model.timeout_seconds):
            completion = await self._client.chat.completions.create(
                model=self.model.model, messages=list(messages), **settings
            )
        return self._reply(completion, messages, tries)

    def _reply(self, completion: Any, messages: Messages, tries: int) -> Reply:
        """The reply in a completion, read without trust: endpoints leave out what the library takes for given."""
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if choices is None or message is None:
            raise ValueError("the endpoint's reply holds no choice")
        text, refusal = (self._text(getattr(message, name, None)) for name in ("content", "refusal"))
        usage = getattr(completion, "usage", None)
        counted = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        tokens = [count for count in counted if isinstance(count, int) and count >= 0]
        estimated = len(tokens) < 2
        if estimated:
            tokens = [estimated_tokens(" ".join(one["content"] for one in messages)), estimated_tokens(text)]
        return Reply(
            text=text,
            refusal=refusal,
            finish_reason=self._text(getattr(choices[0], "finish_reason", None)),
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            tokens_estimated=estimated,
            model=self._text(getattr(completion, "model", None)),
            tries=tries,
        )

    def _text(self, value: Any) -> str:
        """A text of the endpoint's without the key; half of a surrogate pair, which could not be sent back, is `?`."""
        return redacted(value, self._key).encode(errors="replace").decode() if isinstance(value, str) else ""

    def _wait_or_fail(self, error: Exception, tries: int) -> float | Reply:
        """Seconds to wait before the next try; a Reply where the error is a refusal; raises EndpointFailure."""
        status, code = getattr(error, "status_code", None), str(getattr(error, "code", None))
        if status is not None and status < 500 and code in _REFUSED_BY_FILTER:
            return Reply("", self._said(error), "content_filter", 0, 0, True, self.model.model, tries)
        temporary = status is None or status in _TRIED_AGAIN or status >= 500
        if not temporary or code in _NEVER_BETTER:
            hopeless = status in (401, 403, 404) or code in _NEVER_BETTER
            raise EndpointFailure(self._said(error), hopeless=hopeless) from None
        response = getattr(error, "response", None)
        after = retry_after_seconds(response.headers, time.time()) if response is not None else None
        if after is not None and after > LONGEST_RETRY_AFTER_SECONDS:
            raise EndpointFailure(f"{self._said(error)}: asks to wait {after:.0f} s", hopeless=True) from None
        if tries > self.model.retries:
            raise EndpointFailure(f"{self._said(error)} (tried {tries} times)") from None
        if after is not None:
            self._limit.put_off(after)
        return wait_seconds(self.model, tries, after, random.random())

    def _said(self, error: Exception) -> str:
        status = getattr(error, "status_code", None)
        text = " ".join(redacted(str(error), self._key).split())
        where = f"HTTP {status}: " if status and not text.startswith("Error code") else ""
        return f"model {self.model.name}: {where}{text[:_SHOWN_CHARACTERS] or type(error).__name__}"


def estimated_tokens(text: str) -> int:
    """Tokens of a text, roughly: one for every four characters.

    >>> estimated_tokens("a dozen letters"), estimated_tokens("")
    (4, 0)
    """
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)

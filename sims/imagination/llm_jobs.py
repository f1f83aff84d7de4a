"""What is asked of a model: to invent one question, or to answer one. Each job ends in one row of the store.

A reply that cannot be read is asked for again once, with the reason; then it is recorded as what it is. Nothing that a
model says is an error: a refusal is data. Only a request without any reply leaves no row, and is asked again next time.
"""

import datetime
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sims.imagination.llm_client import Messages, Reply, estimated_tokens
from sims.imagination.llm_models import Model
from sims.imagination.llm_parsing import Invented, Malformed, is_refusal, parse_answer, parse_question
from sims.imagination.llm_prompts import Prompts
from sims.imagination.llm_questions import Question
from sims.store import Result, fingerprint

QUESTION, ANSWER = "llm-question", "llm-answer"
KINDS = ("direct", "context")
_PROMPTS = {"direct": ("direct_question", "repair"), "context": ("context_paragraph", "context_question", "repair")}
_TYPICAL_TOKENS = {"question": 200, "paragraph": 250, "answer": 12}  # of replies; rough, for the plan alone
_TYPICAL_QUESTION_TOKENS = 120

Ask = Callable[[Messages, float | None], Awaitable[Reply]]


@dataclass(frozen=True)
class Estimate:
    """Requests, tokens and cost that a job is expected to take, and the cost that it takes at most (both rough)."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: float
    cost_at_most: float


@dataclass
class _Talk:
    """One conversation with a model: its messages so far, and what they took."""

    ask: Ask
    temperature: float | None
    messages: list[dict[str, str]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    async def say(self, text: str) -> Reply:
        self.messages.append({"role": "user", "content": text})
        reply = await self.ask(self.messages, self.temperature)
        self.messages.append({"role": "assistant", "content": reply.text or "(nothing)"})
        self.replies.append(reply)
        return reply

    async def parsed(self, prompt: str, prompts: Prompts, parse: Callable[[str], Any]) -> tuple[str, Any, str]:
        """(outcome, what was parsed or None, what was wrong with the last reply), after one repair at most."""
        error = ""
        for attempt in range(2):
            reply = await self.say(prompt if attempt == 0 else prompts.filled("repair", error=error))
            if _declared_refusal(reply):
                return "refused", None, reply.refusal
            try:
                return "", parse(reply.text), ""
            except Malformed as problem:
                error = "It was cut off; be briefer." if reply.finish_reason == "length" else str(problem)
        return ("refused" if is_refusal(self.replies[-1].text) else "malformed"), None, error

    def account(self) -> dict[str, Any]:
        last = self.replies[-1]
        return {
            "requests": len(self.replies),
            "tries": sum(reply.tries for reply in self.replies),
            "input_tokens": sum(reply.input_tokens for reply in self.replies),
            "output_tokens": sum(reply.output_tokens for reply in self.replies),
            "tokens_estimated": any(reply.tokens_estimated for reply in self.replies),
            "reply": last.text,
            "reply_model": last.model,
            "finish_reason": last.finish_reason,
        }


def _declared_refusal(reply: Reply) -> bool:
    return bool(reply.refusal) or reply.finish_reason == "content_filter"


@dataclass(frozen=True)
class QuestionJob:
    """Invent question `number` of a kind (direct, context) on a topic."""

    model: Model
    kind: str
    topic: str
    number: int
    seed: int
    prompts: Prompts
    role = "question"

    @property
    def spec(self) -> dict[str, Any]:
        """What the row depends on. Two seeds are two draws of a model that samples."""
        return {
            **self.model.identity("question"),
            "kind": self.kind,
            "topic": self.topic,
            "number": self.number,
            "seed": self.seed,
            "prompts": self.prompts.fingerprint(*_PROMPTS[self.kind]),
        }

    @property
    def fingerprint(self) -> str:
        """The name of the row."""
        return fingerprint(QUESTION, self.spec)

    async def run(self, ask: Ask) -> Result:
        """The row: outcome `invented`, `refused` or `malformed`; raises EndpointFailure where there is no reply."""
        talk = _Talk(ask, self.model.question_temperature)
        paragraph, invented, error = "", None, ""
        outcome = ""
        prompt = self.prompts.filled(_PROMPTS[self.kind][0], topic=self.topic)
        if self.kind == "context":
            reply = await talk.say(prompt)
            paragraph, prompt = reply.text, self.prompts.filled("context_question")
            if _declared_refusal(reply) or is_refusal(paragraph):
                outcome, error = "refused", reply.refusal
            elif not paragraph.strip() or reply.finish_reason == "length":
                outcome, error = "malformed", "The paragraph is empty or was cut off."
        if not outcome:
            outcome, invented, error = await talk.parsed(prompt, self.prompts, parse_question)
        return self._row(outcome or "invented", invented, paragraph, error, talk)

    def _row(self, outcome: str, invented: Invented | None, paragraph: str, error: str, talk: _Talk) -> Result:
        metrics = {
            "outcome": outcome,
            "question": invented.question if invented else "",
            "options": json.dumps(invented.options if invented else []),
            "correct": invented.correct if invented else -1,
            "paragraph": paragraph,
            "error": error,
            **talk.account(),
        }
        return Result(QUESTION, self.spec, outcome, metrics, environment=_moment())

    def question(self, row: Result) -> Question | None:
        """The question in a row of this job; None if it holds none."""
        if row.metrics["outcome"] != "invented":
            return None
        options = tuple(json.loads(str(row.metrics["options"])))
        correct = int(row.metrics["correct"] or 0)
        return Question(self.kind, self.topic, self.model.name, str(row.metrics["question"]), options, correct)

    def estimate(self) -> Estimate:
        """What this job is expected to take."""
        first = estimated_tokens(self.prompts.filled(_PROMPTS[self.kind][0], topic=self.topic))
        if self.kind == "direct":
            return _estimate(self.model, [first], [_TYPICAL_TOKENS["question"]])
        second = estimated_tokens(self.prompts.texts["context_question"])
        return _estimate(self.model, [first, second], [_TYPICAL_TOKENS["paragraph"], _TYPICAL_TOKENS["question"]])


@dataclass(frozen=True)
class AnswerJob:
    """Answer a question, its options in the seeded order. The paragraph behind a context question is not shown."""

    model: Model
    question: Question | None  # None in a plan, where it is yet to be invented
    seed: int
    prompts: Prompts
    role = "answer"

    @property
    def spec(self) -> dict[str, Any]:
        """What the row depends on; the question by its fingerprint, whoever invented it."""
        assert self.question is not None
        return {
            **self.model.identity("answer"),
            "question": self.question.fingerprint(),
            "order": list(self.question.order(self.seed)),
            "seed": self.seed,
            "prompts": self.prompts.fingerprint("answer", "repair"),
        }

    @property
    def fingerprint(self) -> str:
        """The name of the row."""
        return fingerprint(ANSWER, self.spec)

    def _prompt(self) -> str:
        assert self.question is not None
        options = self.question.shown_options(self.seed)
        return self.prompts.filled("answer", question=self.question.question, options=options)

    async def run(self, ask: Ask) -> Result:
        """The row: outcome `answered`, `declined`, `refused` or `malformed`; `chosen` counts as the question does."""
        assert self.question is not None
        talk = _Talk(ask, self.model.answer_temperature)
        outcome, position, error = await talk.parsed(self._prompt(), self.prompts, parse_answer)
        if not outcome:
            outcome = "declined" if position is None else "answered"
        metrics = {
            "outcome": outcome,
            "chosen": -1 if position is None else self.question.order(self.seed)[position],
            "position": -1 if position is None else position,
            "error": error,
            **talk.account(),
        }
        return Result(ANSWER, self.spec, outcome, metrics, environment=_moment())

    def estimate(self) -> Estimate:
        """What this job is expected to take."""
        if self.question is None:
            prompt = estimated_tokens(self.prompts.texts["answer"]) + _TYPICAL_QUESTION_TOKENS
        else:
            prompt = estimated_tokens(self._prompt())
        return _estimate(self.model, [prompt], [_TYPICAL_TOKENS["answer"]])


def _estimate(model: Model, prompts: list[int], replies: list[int]) -> Estimate:
    """Of a talk with these prompts and replies; at most: replies as long as allowed, and the last one repaired."""
    replies = [min(reply, model.max_tokens) for reply in replies]
    longest = [model.max_tokens] * (len(prompts) + 1)
    inputs, outputs = _talk_tokens(prompts, replies)
    return Estimate(
        requests=len(prompts),
        input_tokens=inputs,
        output_tokens=outputs,
        cost=model.cost(inputs, outputs),
        cost_at_most=model.cost(*_talk_tokens([*prompts, 2 * _TYPICAL_QUESTION_TOKENS], longest)),
    )


def _talk_tokens(prompts: list[int], replies: list[int]) -> tuple[int, int]:
    """(input, output) tokens of a talk: each request sends all that was said before it again.

    >>> _talk_tokens([10, 5], [100, 20])
    (125, 120)
    """
    inputs, so_far = 0, 0
    for prompt, reply in zip(prompts, replies, strict=True):
        so_far += prompt
        inputs += so_far
        so_far += reply
    return inputs, sum(replies)


def _moment() -> dict[str, Any]:
    return {"asked_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}

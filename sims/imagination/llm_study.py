"""The study with real models: questions that each question model invents, answers of each answer model to all of them.

Two rounds, each a set of jobs (sims.imagination.llm_jobs) of which the store keeps those that are done: a command asks
what is missing, and a run that was killed loses the requests in flight and nothing else.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sims.imagination.llm_client import Endpoint, EndpointFailure, Messages, Reply, estimated_tokens
from sims.imagination.llm_jobs import AnswerJob, QuestionJob
from sims.imagination.llm_models import Model, Models
from sims.imagination.llm_prompts import Prompts
from sims.imagination.llm_questions import Question
from sims.store import Store

Job = QuestionJob | AnswerJob

# Our choice: the published study has as many, whose names we do not quote.
TOPICS = (
    "accounting", "biology", "chemistry", "computer science", "economics", "geography", "history", "law",
    "linguistics", "literature", "mathematics", "medicine", "music", "philosophy", "physics", "psychology", "sociology",
)  # fmt: skip
_LOOK_AGAIN_SECONDS = 0.02
_FAILURES_IN_A_ROW = 3  # then a model is left alone until the next run


@dataclass(frozen=True)
class Study:
    """What is asked of whom. `questions` that were read from files take the place of inventing any."""

    models: Models
    prompts: Prompts
    kinds: tuple[str, ...] = ("direct", "context")
    topics: tuple[str, ...] = TOPICS
    per_topic: int = 5
    seed: int = 0
    questions: tuple[Question, ...] | None = None

    def question_jobs(self) -> list[QuestionJob]:
        """One job for every question model, kind, topic and number; none where the questions are given."""
        if self.questions is not None:
            return []
        return [
            QuestionJob(model, kind, topic, number, self.seed, self.prompts)
            for model in self.models.of("question")
            for kind in self.kinds
            for topic in self.topics
            for number in range(self.per_topic)
        ]

    def answer_jobs(self, questions: Iterable[Question | None]) -> list[AnswerJob]:
        """One job for every answer model and question; a question of None is one that is yet to be invented."""
        asked = list(questions)
        return [
            AnswerJob(model, question, self.seed, self.prompts)
            for model in self.models.of("answer")
            for question in asked
        ]

    def known_questions(self, store: Store | None) -> list[Question | None]:
        """The question of each job of the first round that the store has (None: not asked yet), or those given.

        A job whose question model refused, or wrote none that could be used, has no place in the list.
        """
        if self.questions is not None:
            return list(self.questions)
        jobs = self.question_jobs()
        names = {job.fingerprint for job in jobs}
        rows = {} if store is None else {row.fingerprint: row for row in store.results(names=names)}
        questions: list[Question | None] = []
        for job in jobs:
            row = rows.get(job.fingerprint)
            question = None if row is None else job.question(row)
            if row is None or question is not None:
                questions.append(question)
        return questions


class BudgetReached(Exception):
    """The next request might cost more than is left."""


@dataclass
class Purse:
    """What a run has spent, and the most that it may: before a request the most that it can cost is set apart."""

    budget: float = math.inf
    spent: float = 0.0
    requests: int = 0
    set_apart: float = 0.0

    async def ask(self, endpoint: Endpoint, messages: Messages, temperature: float | None) -> Reply:
        """The endpoint's reply, paid for; raises BudgetReached, with nothing asked, if the money might not do."""
        model = endpoint.model
        prompt = sum(estimated_tokens(message["content"]) for message in messages)
        most = model.cost(prompt, model.max_tokens)
        while self.spent + self.set_apart + most > self.budget:
            if self.spent + most > self.budget:
                raise BudgetReached
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)  # requests in flight will cost less than is set apart for them
        self.set_apart += most
        try:
            reply = await endpoint.ask(messages, temperature)
        finally:
            self.set_apart -= most
        self.requests += 1
        self.spent += model.cost(reply.input_tokens, reply.output_tokens)
        return reply


@dataclass
class Round:
    """How a round went: jobs done, jobs left over, and why, by model."""

    done: int = 0
    left: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)
    budget_reached: bool = False


def ask_missing(
    jobs: Sequence[Job],
    store: Store,
    purse: Purse,
    *,
    concurrency: int | None = None,
    advanced: Callable[[int], None] = lambda jobs: None,
) -> Round:
    """Do the jobs that the store lacks, a few of each model at a time, and put each into the store as it is done."""
    missing = {job.fingerprint: job for job in jobs}  # two question models may invent the same question
    for name in [name for name in missing if name in store]:
        del missing[name]
    outcome = Round(left=len(missing))
    if missing:
        asyncio.run(_ask_all(list(missing.values()), store, purse, concurrency, outcome, advanced))
    return outcome


async def _ask_all(
    jobs: list[Job],
    store: Store,
    purse: Purse,
    concurrency: int | None,
    outcome: Round,
    advanced: Callable[[int], None],
) -> None:
    by_model: dict[Model, list[Job]] = {}
    for job in jobs:
        by_model.setdefault(job.model, []).append(job)
    async with AsyncExitStack() as stack:
        workers = []
        for model, its_jobs in by_model.items():
            endpoint = await stack.enter_async_context(Endpoint(model, concurrency))
            worker = _Worker(endpoint, store, purse, outcome, advanced)
            queue = iter(its_jobs)
            workers += [worker.work(queue) for _ in range(min(len(its_jobs), concurrency or model.concurrency))]
        await asyncio.gather(*workers)


@dataclass
class _Worker:
    """Does the jobs of one model; several of its `work` may run at once."""

    endpoint: Endpoint
    store: Store
    purse: Purse
    outcome: Round
    advanced: Callable[[int], None]
    failed_in_a_row: int = 0

    async def work(self, queue: Iterable[Job]) -> None:
        for job in queue:
            try:
                row = await job.run(lambda messages, heat: self.purse.ask(self.endpoint, messages, heat))
            except BudgetReached:
                self.outcome.budget_reached = True
            except EndpointFailure as failure:
                self.outcome.failures.setdefault(self.endpoint.model.name, []).append(str(failure))
                self.failed_in_a_row += _FAILURES_IN_A_ROW if failure.hopeless else 1
            else:
                self.failed_in_a_row = 0
                if job.fingerprint not in self.store:  # another process with the same store may have been faster
                    self.store.put(row)
                self.outcome.done += 1
                self.outcome.left -= 1
                self.advanced(1)
            if self.outcome.budget_reached or self.failed_in_a_row >= _FAILURES_IN_A_ROW:
                return

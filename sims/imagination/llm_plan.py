"""What a study with real models would ask and cost, before it asks anything."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from sims.imagination.llm_jobs import AnswerJob, Estimate
from sims.imagination.llm_models import Model
from sims.imagination.llm_study import Job, Study
from sims.store import Store


@dataclass(frozen=True)
class Plan:
    """Jobs in all and those that are missing, by model; the estimates are of the missing ones."""

    models: tuple[dict[str, Any], ...]

    def total(self, name: str) -> float:
        """The sum of one column over the models."""
        return sum(row[name] for row in self.models)


def plan(study: Study, store: Store | None, *, fresh: bool = False) -> Plan:
    """Estimate what the study lacks, given what `store` holds (None: there is no store yet)."""
    kept = None if fresh else store
    questions = study.question_jobs()
    known = study.known_questions(kept)
    # Questions that are yet to be invented are different from each other and from all that are known.
    asked = [*dict.fromkeys(question for question in known if question), *(None for question in known if not question)]
    answers = study.answer_jobs(asked)
    return Plan(tuple(_row(model, questions, answers, kept) for model in study.models.models))


def print_plan(of: Plan, budget: float | None) -> None:
    """The plan as text."""
    for row in of.models:
        click.echo(
            f"{row['model']}: {row['questions_missing']} of {row['questions']} questions and "
            f"{row['answers_missing']} of {row['answers']} answers to ask for; about {row['requests']} requests, "
            f"{row['input_tokens']} + {row['output_tokens']} tokens, cost {row['cost']:.4f}, "
            f"at most {row['cost_at_most']:.4f}; at least {row['minutes_at_least']:.1f} minutes"
        )
        if row["key_missing"]:
            click.echo(f"note: {row['model']} needs a key in {row['key_missing']}, which is not set")
    click.echo(
        f"In all about {of.total('requests')} requests, cost {of.total('cost'):.4f}, at most "
        f"{of.total('cost_at_most'):.4f} without failed requests"
        + ("" if budget is None else f"; the budget is {budget:g}")
    )
    click.echo("Tokens are estimated from characters, four to a token, and replies from their usual length.")


def _row(model: Model, questions: Sequence[Job], answers: Sequence[Job], store: Store | None) -> dict[str, Any]:
    counts, estimates = {}, []
    for name, jobs in (("questions", questions), ("answers", answers)):
        its = [job for job in jobs if job.model == model]
        missing = [job for job in its if not _is_stored(job, store)]
        counts |= {name: len(its), f"{name}_missing": len(missing)}
        estimates += [job.estimate() for job in missing]
    requests = sum(one.requests for one in estimates)
    return {
        "model": model.name,
        **counts,
        **{name: sum(getattr(one, name) for one in estimates) for name in Estimate.__dataclass_fields__},
        "minutes_at_least": requests / model.requests_per_minute,
        "key_missing": model.api_key_env if model.api_key_env and not os.environ.get(model.api_key_env) else "",
    }


def _is_stored(job: Job, store: Store | None) -> bool:
    if store is None or (isinstance(job, AnswerJob) and job.question is None):
        return False
    return job.fingerprint in store

"""The command `imagine llm`: the imagination study with real models behind OpenAI-compatible endpoints."""

import math
from pathlib import Path

import click

from sims.imagination import llm_plan
from sims.imagination.llm_client import client_library
from sims.imagination.llm_jobs import KINDS
from sims.imagination.llm_models import read_models
from sims.imagination.llm_prompts import read_prompts
from sims.imagination.llm_questions import Question, field_mapping, read_questions
from sims.imagination.llm_study import TOPICS, Job, Purse, Round, Study, ask_missing
from sims.progress import Progress
from sims.store import Store
from theory.console import Refusal, print_json, shared_flags

_PER_TOPIC = 5


@click.command(short_help="Ask real models invented questions, through OpenAI-compatible endpoints.")
@click.option("--models", "models_file", type=click.Path(path_type=Path), required=True, help="TOML file of models.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Folder of templates that replace the packaged ones.")
@click.option(
    "--questions",
    "question_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="JSONL file of questions to ask instead of inventing any; may be given several times.",
)
@click.option("--field", "fields", multiple=True, metavar="OURS=THEIRS", help="A field of --questions by its name.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Kinds of questions to invent.")
@click.option("--topics", help="Comma-separated topics to invent questions about, or to pick from --questions.")
@click.option(
    "--per-topic",
    type=click.IntRange(1),
    help=f"Questions of each model, kind and topic. [default: {_PER_TOPIC}, or all of --questions]",
)
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight to each model, whatever --models says.")
@click.option("--budget", type=click.FloatRange(0), help="Most to spend in this run, in the currency of --models.")
@shared_flags("store", "out", "seed", "plan", "fresh", "json", "quiet")
def llm(
    models_file: Path,
    prompts: Path | None,
    question_files: tuple[Path, ...],
    fields: tuple[str, ...],
    kinds: str,
    topics: str | None,
    per_topic: int | None,
    concurrency: int | None,
    budget: float | None,
    store: Path | None,
    out: Path,
    seed: int,
    plan: bool,
    fresh: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Let question models invent questions about things that do not exist, and answer models answer them.

    Every question of every question model goes to every answer model; what comes out is how often they agree with it,
    within a model, within a family and across families. Answers are kept, and only what is missing is asked.

    \b
    Example:
      loss-threshold imagine llm --models models.toml --plan
      loss-threshold imagine llm --models models.toml --topics physics,law --per-topic 2 --budget 1
      loss-threshold imagine llm --models models.toml --questions direct_questions.jsonl --field options=choices

    \b
    models.toml, for each model (all keys: sims/imagination/llm_models.py):
      [[model]]
      name = "alpha-small"
      family = "alpha"
      base_url = "http://localhost:8000/v1"
      model = "alpha-7b"          # what the endpoint calls it
      api_key_env = "ALPHA_KEY"   # the name of an environment variable, never a key
      input_price = 0.15          # per million tokens
      output_price = 0.60
    """
    given, notes = _given_questions(question_files, fields, topics, per_topic)
    study = Study(
        models=read_models(models_file),
        prompts=read_prompts(prompts),
        kinds=_kinds(kinds),
        topics=_listed("--topics", topics) or TOPICS,
        per_topic=per_topic or _PER_TOPIC,
        seed=seed,
        questions=given,
    )
    _refuse_without_roles(study, models_file)
    path = store or out / "runs.sqlite"
    planned = _plan(study, path, fresh=fresh)
    if plan:
        if as_json:
            print_json({"models": planned.models, "notes": notes})
        else:
            for note in notes:
                click.echo(f"note: {note}")
            llm_plan.print_plan(planned, budget)
        return
    if budget is not None and planned.total("cost") > budget:
        raise Refusal(
            f"--budget {budget:g}: the study is expected to cost {planned.total('cost'):.4f}; "
            "ask fewer questions (--per-topic, --topics) or raise it; --plan shows the parts"
        )
    _refuse_without_keys(study, planned)
    from sims.imagination import llm_report  # SciPy takes a second to load, which plans and refusals need not wait for

    with Store(path) as opened:
        purse = Purse(math.inf if budget is None else budget)
        rounds = _ask(study, opened, purse, planned, concurrency, fresh=fresh, quiet=quiet or as_json)
        found = llm_report.collect(study, opened)
    found["notes"] = [*notes, *found["notes"]]
    paths = llm_report.write_files(found, out)
    if as_json:
        spent = {"requests": purse.requests, "cost": purse.spent}
        print_json(llm_report.document(found) | {"this_run": spent, "files": [str(path) for path in paths]})
    else:
        llm_report.print_report(found, paths)
        click.echo(f"This run: {purse.requests} replies, cost {purse.spent:.4f}")
    _refuse_if_incomplete(rounds, budget)


def _listed(flag: str, text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    if text is not None and not names:
        raise Refusal(f"{flag}: names nothing; separate names with commas")
    return names


def _kinds(text: str) -> tuple[str, ...]:
    kinds = _listed("--kinds", text)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise Refusal(f"--kinds {unknown[0]}: the kinds are {', '.join(KINDS)}")
    return kinds


def _given_questions(
    files: tuple[Path, ...], fields: tuple[str, ...], topics: str | None, per_topic: int | None
) -> tuple[tuple[Question, ...] | None, list[str]]:
    """The questions of the files, of these topics and so many of each; None where there is no file."""
    mapping = field_mapping(fields)
    if not files:
        if mapping:
            raise Refusal("--field names a field of --questions, which is not given")
        return None, []
    read = [read_questions(file, mapping) for file in files]
    questions = dict.fromkeys(question for one in read for question in one.questions)
    wanted = _listed("--topics", topics)
    if missing := set(wanted) - {question.topic for question in questions}:
        raise Refusal(f"--topics {min(missing)}: no question of the files is about it")
    taken: dict[tuple[str, str, str], int] = {}
    picked = []
    for question in questions:
        group = (question.question_model, question.kind, question.topic)
        taken[group] = taken.get(group, 0) + 1
        if (not wanted or question.topic in wanted) and (per_topic is None or taken[group] <= per_topic):
            picked.append(question)
    return tuple(picked), [note for one in read for note in one.notes]


def _refuse_without_roles(study: Study, models_file: Path) -> None:
    if not study.models.of("answer"):
        raise Refusal(f'{models_file}: no model has the role "answer"')
    if study.questions is None and not study.models.of("question"):
        raise Refusal(f'{models_file}: no model has the role "question"; give one, or --questions')


def _plan(study: Study, path: Path, *, fresh: bool) -> llm_plan.Plan:
    if not path.exists():
        return llm_plan.plan(study, None)
    with Store(path) as store:
        return llm_plan.plan(study, store, fresh=fresh)


def _refuse_without_keys(study: Study, planned: llm_plan.Plan) -> None:
    """Before anything is asked: is the library there, and every key that will be needed?"""
    if planned.total("requests"):
        client_library()
    for model, row in zip(study.models.models, planned.models, strict=True):
        if row["requests"]:
            model.api_key()


def _ask(
    study: Study,
    store: Store,
    purse: Purse,
    planned: llm_plan.Plan,
    concurrency: int | None,
    *,
    fresh: bool,
    quiet: bool,
) -> list[Round]:
    if fresh:
        old = [question for question in study.known_questions(store) if question is not None]
        jobs: list[Job] = [*study.question_jobs(), *study.answer_jobs(old)]
        store.delete(job.fingerprint for job in jobs)
    total = planned.total("questions_missing") + planned.total("answers_missing")
    with Progress("asking models", max(1, total), quiet=quiet or not total) as progress:
        first = ask_missing(study.question_jobs(), store, purse, concurrency=concurrency, advanced=progress.advance)
        if first.budget_reached:
            return [first]
        known = dict.fromkeys(question for question in study.known_questions(store) if question is not None)
        second = ask_missing(study.answer_jobs(known), store, purse, concurrency=concurrency, advanced=progress.advance)
    return [first, second]


def _refuse_if_incomplete(rounds: list[Round], budget: float | None) -> None:
    left = sum(one.left for one in rounds)
    if any(one.budget_reached for one in rounds):
        raise Refusal(
            f"--budget {budget:g}: reached, {left} questions or answers of this round are left; what came is kept: "
            "run the command again with more to ask the rest"
        )
    if left:
        failures = [texts[0] for one in rounds for texts in one.failures.values()]
        raise Refusal(
            f"{left} questions or answers got no reply; what came is kept, and running the command again asks only "
            f"those. First of each model: {'; '.join(dict.fromkeys(failures))}"
        )

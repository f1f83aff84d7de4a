"""What the commands of `mome` do and print."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sims.fact_files import read_facts, read_questions, write_facts
from sims.fact_report import Facts
from sims.memory import plan
from sims.memory.adding import add as add_facts
from sims.memory.changing import change_fact, undo_last
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity, grouped
from sims.memory.memorizing import default_experts, memorize, read_tokens
from sims.memory.memory import Answer, Memory
from sims.memory.report import outcome_lines, outcome_report
from sims.progress import Progress
from theory.console import Refusal, print_json

_LISTED = 20  # failures that are printed; --json has all


def run_memorize(flags: Mapping[str, Any]) -> bool:
    """Memorize a file; whether every fact was stored."""
    facts = _facts(flags, flags["normalize"])
    folder = Folder(flags["out"])
    tokens = int(read_tokens(facts).answer_mask.sum())
    settings = Settings(
        experts=flags["experts"] or default_experts(tokens),
        chosen=flags["chosen"],
        addresses=flags["addresses"],
        share=flags["share"],
        normalize=flags["normalize"],
        threshold_nats=flags["threshold_nats"],
        false_acceptance=flags["false_acceptance"],
        procedure=flags["procedure"],
        seed=flags["seed"],
    )
    if flags["plan"]:
        _show(plan.memorizing(facts, settings, folder), flags["as_json"])
        return True
    source = Folder(flags["backbone"]) if flags["backbone"] else None
    if flags["fresh"] and folder.exists():
        shutil.rmtree(folder.path)
    outcome = memorize(
        facts,
        folder,
        settings,
        backbone_from=source,
        pretrain_seconds=flags["pretrain_seconds"],
        most_passes=flags["passes"],
        quiet=_quiet(flags),
    )
    _show(outcome_report(outcome, folder), flags["as_json"], outcome_lines)
    return bool(outcome.stored.all())


def run_add(flags: Mapping[str, Any]) -> bool:
    """Add a file's facts; whether every fact, old and new, is stored."""
    folder = Folder(flags["folder"])
    facts = _facts(flags, folder.settings().normalize)
    if flags["plan"]:
        _show(plan.adding(facts, folder), flags["as_json"])
        return True
    outcome = add_facts(facts, folder, quiet=_quiet(flags))
    _show(outcome_report(outcome, folder), flags["as_json"], outcome_lines)
    return bool(outcome.stored.all())


def run_ask(flags: Mapping[str, Any]) -> None:
    """Answer a question, a file of them, or one after the other."""
    with Memory.load(flags["folder"]) as memory:
        if flags["questions_file"] is not None:
            questions = read_questions(flags["questions_file"], flags["question_column"])
            for answer in memory.ask_all(questions):
                click.echo(json.dumps(_plain(answer), ensure_ascii=False) if flags["as_json"] else _one_line(answer))
            return
        if flags["question"] is not None:
            _print_answer(memory.ask(flags["question"]), flags["as_json"])
            return
        while question := _next_question():
            _print_answer(memory.ask(question), flags["as_json"])


def run_check(flags: Mapping[str, Any]) -> bool:
    """Compare the answers to a file's questions with the file; whether all are right."""
    with Memory.load(flags["folder"]) as memory:
        facts = _facts(flags, memory.settings.normalize)
        answers = _asked(memory, facts.questions, "asking", quiet=_quiet(flags))
    wrong = [
        {
            "line": line,
            "question": answer.question,
            "expected": expected,
            "answer": answer.text if answer.known else None,
        }
        for answer, expected, line in zip(answers, facts.answers, facts.lines, strict=True)
        if not (answer.known and answer.ended and answer.text == expected)
    ]
    report = {
        "facts": len(facts),
        "right": len(facts) - len(wrong),
        "unknown": sum(not answer.known for answer in answers),
        "exact_recall": 1 - len(wrong) / len(facts),
        "least_probability": min(answer.least_probability for answer in answers),
        "set_aside_rows": facts.report.rows_set_aside,
        "failures": wrong,
    }
    _show(report, flags["as_json"], _check_lines)
    return not wrong


def run_edit(flags: Mapping[str, Any]) -> bool:
    """Change one fact or take the last change back; whether every other fact is as right as before."""
    folder = Folder(flags["folder"])
    if flags["undo"]:
        changed = undo_last(folder)
    else:
        changed = change_fact(folder, flags["question"], None if flags["delete"] else flags["answer"])
    _show(changed.report(), flags["as_json"], lambda _: changed.lines())
    return changed.done


def run_export(flags: Mapping[str, Any]) -> bool:
    """Write the stored questions with the answers that the model gives; whether they are the stored ones."""
    with Memory.load(flags["folder"]) as memory:
        facts = memory.facts
        answers = _asked(memory, facts.questions, "reading the facts back", quiet=flags["quiet"])
    texts = [answer.text for answer in answers]
    if flags["target"] is not None:
        write_facts(flags["target"], facts.questions, texts)
    else:
        write_facts_to_stdout(facts.questions, texts)
    different = sum(text != stored for text, stored in zip(texts, facts.answers, strict=True))
    if different:
        click.echo(f"{different} of {len(texts)} answers differ from what was stored; see `mome check`", err=True)
    return not different


def write_facts_to_stdout(questions: Sequence[str], answers: Sequence[str]) -> None:
    """CSV, as `write_facts` writes it."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("question", "answer"))
    writer.writerows(zip(questions, answers, strict=True))


def _facts(flags: Mapping[str, Any], normalize: str) -> Facts:
    read = read_facts(
        flags["file"],
        question_column=flags["question_column"],
        answer_column=flags["answer_column"],
        conflicts="keep",
    )
    if flags["conflicts"] == "keep":
        raise Refusal("--conflicts keep: a memory gives one answer to a question; choose set-aside, first or refuse")
    return grouped(read, Identity.parse(normalize) if normalize else Identity(), flags["conflicts"])


def _asked(memory: Memory, questions: Sequence[str], text: str, *, quiet: bool) -> list[Answer]:
    with Progress(text, len(questions), quiet=quiet) as progress:
        return memory.ask_all(questions, name_nearest=False, advance=progress.advance)


def _next_question() -> str:
    """What is typed at the prompt; nothing at the end of the input."""
    try:
        return input("question> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _print_answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_json(_plain(answer))
        return
    if answer.known:
        click.echo(answer.text)
        click.echo(f"  least sure of a byte: probability {answer.least_probability:.3f}", err=True)
        return
    click.echo("unknown")
    for question, likeness in answer.nearest:
        click.echo(f"  near ({likeness:.2f}): {question}", err=True)


def _one_line(answer: Answer) -> str:
    return answer.text if answer.known else "unknown"


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "known": answer.known,
        "answer": answer.text if answer.known else None,
        "probabilities": list(answer.probabilities) if answer.known else None,
        "experts": [list(experts) for experts in answer.experts] if answer.known else None,
        "nearest": [{"question": question, "likeness": likeness} for question, likeness in answer.nearest],
    }


def _check_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{report['right']:,} of {report['facts']:,} answers exact ({report['exact_recall']:.2%}); "
        f"{report['unknown']:,} questions unknown; least probability of a byte {report['least_probability']:.3f}"
    ]
    if report["set_aside_rows"]:
        lines.append(f"{report['set_aside_rows']} rows of questions with several answers were left out")
    for failure in report["failures"][:_LISTED]:
        said = "unknown" if failure["answer"] is None else repr(failure["answer"])
        lines.append(f"  line {failure['line']}: {failure['question']!r}: {failure['expected']!r}, not {said}")
    if len(report["failures"]) > _LISTED:
        lines.append(f"  and {len(report['failures']) - _LISTED} more (--json lists all)")
    return lines


def _show(report: Mapping[str, Any], as_json: bool, lines: Any = None) -> None:
    if as_json:
        print_json(report)
        return
    for line in lines(report) if lines else (f"{name}: {value}" for name, value in report.items()):
        click.echo(line)


def _quiet(flags: Mapping[str, Any]) -> bool:
    return bool(flags["quiet"] or flags["as_json"])

"""What the commands of `mome` do and print."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sims.fact_files import facts_as_text, read_facts, read_questions, write_facts
from sims.fact_report import Facts
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.memory import Answer, Memory
from sims.progress import Progress
from sims.tokens import BYTES
from theory.console import REFUSED, Refusal, print_json

_LISTED = 20  # failures that are printed; --json has all


def run_memorize(flags: Mapping[str, Any]) -> bool:
    """Memorize a file; whether every fact was stored."""
    from sims.memory import plan
    from sims.memory.memorizing import default_experts, memorize, read_tokens
    from sims.memory.model import given_model
    from sims.memory.report import outcome_lines

    facts = _facts(flags, flags["normalize"])
    folder, model = Folder(flags["out"]), None
    if flags["backbone"] is not None:
        model = given_model(flags["backbone"], flags["dtype"], flags["template"], only_sizes=flags["plan"])
    elif flags["dtype"] is not None or flags["template"] is not None:
        flag = "--template" if flags["dtype"] is None else f"--dtype {flags['dtype']}"
        raise Refusal(f"{flag}: is that of a checkpoint; name one with --backbone FOLDER")
    tokens = read_tokens(facts, BYTES if model is None else model.vocabulary)
    settings = Settings(
        experts=flags["experts"] or default_experts(int(tokens.answer_mask.sum())),
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
        planned = plan.memorizing(facts, tokens, settings, folder, model, fresh=flags["fresh"])
        _show(planned, flags["as_json"], lambda: plan.plan_lines(planned))
        return True
    report = memorize(
        facts,
        folder,
        settings,
        model=model,
        pretrain_seconds=flags["pretrain_seconds"],
        most_passes=flags["passes"],
        fresh=flags["fresh"],
        quiet=_quiet(flags),
    )
    _show(report, flags["as_json"], lambda: outcome_lines(report, folder))
    return report["stored"] == report["facts"]


def run_add(flags: Mapping[str, Any]) -> bool:
    """Add a file's facts; whether every fact, old and new, is stored."""
    from sims.memory import plan
    from sims.memory.adding import add
    from sims.memory.report import addition_lines

    folder = Folder(flags["folder"], flags["backbone"])
    facts = _facts(flags, folder.settings().normalize)
    if flags["plan"]:
        _show(plan.adding(facts, folder), flags["as_json"])
        return True
    report = add(facts, folder, quiet=_quiet(flags))
    _show(report, flags["as_json"], lambda: addition_lines(report, folder))
    return report["stored"] == report["facts"]


def run_ask(flags: Mapping[str, Any]) -> None:
    """Answer a question, a file of them, or one after the other."""
    with Memory.load(flags["folder"], moved_checkpoint=flags["backbone"]) as memory:
        if flags["questions_file"] is not None:
            answers = memory.ask_all(read_questions(flags["questions_file"], flags["question_column"]))
            _show(
                {"answers": [_plain(answer) for answer in answers]}, flags["as_json"], lambda: map(_one_line, answers)
            )
        elif flags["question"] is not None:
            _print_answer(memory.ask(flags["question"]), flags["as_json"])
        else:
            _converse(memory, flags["as_json"])


def run_check(flags: Mapping[str, Any]) -> bool:
    """Compare the answers to a file's questions with the file; whether all are right."""
    with Memory.load(flags["folder"], moved_checkpoint=flags["backbone"]) as memory:
        facts = _facts(flags, memory.settings.normalize)
        answers = _asked(memory, facts.questions, "asking", quiet=_quiet(flags))
    wrong = [
        {"line": line, "question": answer.question, "expected": expected, "answer": answer.text}
        for answer, expected, line in zip(answers, facts.answers, facts.lines, strict=True)
        if not answer.is_exactly(expected)
    ]
    report = {
        "facts": len(facts),
        "right": len(facts) - len(wrong),
        "unknown": sum(not answer.known for answer in answers),
        "exact_recall": 1 - len(wrong) / len(facts),
        "least_probability": min((answer.least_probability for answer in answers if answer.known), default=None),
        "set_aside_rows": facts.report.rows_set_aside,
        "failures": wrong,
    }
    _show(report, flags["as_json"], lambda: _check_lines(report))
    return not wrong


def run_edit(flags: Mapping[str, Any]) -> bool:
    """Change one fact or take the last change back; whether that was done."""
    from sims.memory.changing import change_fact, undo_last

    folder = Folder(flags["folder"], flags["backbone"])
    if flags["undo"]:
        changed = undo_last(folder)
    else:
        changed = change_fact(folder, flags["question"], None if flags["delete"] else flags["answer"])
    _show(changed.report(), flags["as_json"], changed.lines)
    return changed.done


def run_export(flags: Mapping[str, Any]) -> bool:
    """Write the stored questions with the answers that the model gives; whether they are the stored ones."""
    target: Path | None = flags["target"]
    if target is not None and target.exists():  # said before, and not after, all the work
        raise Refusal(f"{target}: exists already; choose another name or delete it")
    with Memory.load(flags["folder"], moved_checkpoint=flags["backbone"]) as memory:
        facts = memory.facts
        answers = _asked(memory, facts.questions, "reading the facts back", quiet=flags["quiet"])
    wrong = [
        q
        for q, answer, stored in zip(facts.questions, answers, facts.answers, strict=True)
        if not answer.is_exactly(stored)
    ]
    if wrong:
        raise Refusal(
            f"{flags['folder']}: {len(wrong)} of {len(facts)} answers are not what was stored, the first to "
            f"{wrong[0]!r}; restore the folder from a copy"
        )
    texts = [answer.text or "" for answer in answers]
    if target is not None:
        write_facts(target, facts.questions, texts)
    else:
        sys.stdout.buffer.write(facts_as_text(facts.questions, texts).encode())
    return True


def _facts(flags: Mapping[str, Any], normalize: str) -> Facts:
    if flags["conflicts"] == "keep":
        raise Refusal("--conflicts keep: a memory gives one answer to a question; choose set-aside, first or refuse")
    return read_facts(
        flags["file"],
        question_column=flags["question_column"],
        answer_column=flags["answer_column"],
        conflicts=flags["conflicts"],
        identity=Identity.parse(normalize),
    )


def _asked(memory: Memory, questions: Sequence[str], text: str, *, quiet: bool) -> list[Answer]:
    with Progress(text, len(questions), quiet=quiet) as progress:
        return memory.ask_all(questions, name_nearest=False, advance=progress.advance)


def _converse(memory: Memory, as_json: bool) -> None:
    """Answer what is typed, question by question; one that cannot be asked is told, and the next is asked for.

    The exit code says at the end if there was one.
    """
    refused = False
    for question in _typed():
        try:
            _print_answer(memory.ask(question), as_json)
        except Refusal as refusal:
            click.echo(refusal, err=True)
            refused = True
    if refused:
        raise SystemExit(REFUSED)


def _typed() -> Iterator[str]:
    """Lines as they are typed, spaces and all, up to a blank one or the end of the input."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # so that a line that is no UTF-8 is refused, and not the rest
    with contextlib.suppress(EOFError):
        while (line := input("question> " if sys.stdin.isatty() else "")).strip():
            yield line


def _print_answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_json(_plain(answer))
        return
    if answer.known:
        click.echo(answer.text)
        read = 0 if answer.experts is None else len(set(answer.experts.ravel().tolist()))
        cut = "" if answer.ended else ", cut off for want of room"
        click.echo(f"  least probability of a token {answer.least_probability:.3f}, {read} experts read{cut}", err=True)
        return
    click.echo("unknown")
    for question, likeness in answer.nearest:
        click.echo(f"  near ({likeness:.2f}): {question}", err=True)


def _one_line(answer: Answer) -> str:
    return "unknown" if answer.text is None else answer.text


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "known": answer.known,
        "answer": answer.text,
        "ended": answer.ended if answer.known else None,
        "probabilities": list(answer.probabilities) if answer.known else None,
        "experts": None if answer.experts is None else answer.experts.tolist(),
        "nearest": [{"question": question, "likeness": likeness} for question, likeness in answer.nearest],
    }


def _check_lines(report: Mapping[str, Any]) -> list[str]:
    least = report["least_probability"]
    lines = [
        f"{report['right']:,} of {report['facts']:,} answers exact ({report['exact_recall']:.2%}); "
        f"{report['unknown']:,} questions unknown"
        + ("" if least is None else f"; least probability of a token {least:.3f}")
    ]
    if report["set_aside_rows"]:
        lines.append(f"{report['set_aside_rows']} rows of questions with several answers were left out")
    for failure in report["failures"][:_LISTED]:
        said = "unknown" if failure["answer"] is None else repr(failure["answer"])
        lines.append(f"  line {failure['line']}: {failure['question']!r}: {failure['expected']!r}, not {said}")
    if len(report["failures"]) > _LISTED:
        lines.append(f"  and {len(report['failures']) - _LISTED} more (--json lists all)")
    return lines


def _show(report: Mapping[str, Any], as_json: bool, lines: Callable[[], Iterable[str]] | None = None) -> None:
    if as_json:
        print_json(report)
        return
    for line in lines() if lines else (f"{name}: {value}" for name, value in report.items()):
        click.echo(line)


def _quiet(flags: Mapping[str, Any]) -> bool:
    return bool(flags["quiet"] or flags["as_json"])

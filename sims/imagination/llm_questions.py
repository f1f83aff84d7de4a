"""Questions about things that do not exist, as a study asks them: read from JSON lines, written, shuffled.

One line of a questions file is one JSON object with the fields of `FIELDS`:

    {"kind": "direct", "topic": "physics", "question_model": "alpha-small", "question": "...",
     "options": ["...", "...", "...", "..."], "answer": 1}

`options` is a list of four texts, or an object with the keys A to D. `answer` is the index from 0, the letter, or the
full text of the correct option. `kind` may be absent: it is then the file's name (direct_questions.jsonl: direct).
`topic` may be absent too. Other fields are let be, and named in the report. A question two of whose options say the
same is set aside, and its line named; anything else that does not fit is refused.

The published question files (direct_questions.jsonl, context_questions.jsonl and their _creative kin) are read by the
same rules. We could not see their field names, so none is built in: where they differ, say --field OURS=THEIRS for
each, as in --field options=choices; four columns of options are --field options=a+b+c+d.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.imagination.llm_parsing import LETTERS, is_unicode, options_problem
from theory.console import Refusal

FIELDS = ("question_model", "question", "options", "answer", "topic", "kind")
_OPTIONAL = ("topic", "kind")


@dataclass(frozen=True)
class Question:
    """One question with its options in the question model's order and the index of the one that it calls correct."""

    kind: str
    topic: str
    question_model: str
    question: str
    options: tuple[str, ...]
    correct: int

    def fingerprint(self) -> str:
        """128 bits in hexadecimal of what an answer model is asked; who invented it, and as what, is not among it."""
        return _digest(json.dumps([self.question, self.options]))

    def order(self, seed: int) -> tuple[int, ...]:
        """The order in which the options are shown: a seeded shuffle, the same for every answer model.

        >>> Question("direct", "physics", "a", "Q?", ("w", "x", "y", "z"), 0).order(seed=0)
        (0, 1, 3, 2)
        """
        order = list(range(len(self.options)))
        random.Random(_digest(f"{seed}\n{self.fingerprint()}")).shuffle(order)
        return tuple(order)

    def shown_options(self, seed: int) -> str:
        """The options as lines `A. ...` in their shuffled order."""
        order = self.order(seed)
        return "\n".join(f"{letter}. {self.options[index]}" for letter, index in zip(LETTERS, order, strict=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class QuestionFile:
    """The questions of a file, and what was noticed: lines set aside, repeated questions, fields that were let be."""

    questions: tuple[Question, ...]
    notes: tuple[str, ...]


def field_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """OURS=THEIRS texts as a mapping; raises Refusal for anything else.

    >>> field_mapping(["options=choices"])
    {'options': 'choices'}
    """
    mapping = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not separator or not theirs or ours not in FIELDS:
            raise Refusal(f"--field {pair}: give OURS=THEIRS, where OURS is one of {', '.join(FIELDS)}")
        if ours in mapping:
            raise Refusal(f"--field {pair}: {ours} is mapped twice")
        mapping[ours] = theirs
    return mapping


def read_questions(path: Path, mapping: Mapping[str, str] | None = None) -> QuestionFile:
    """Read a questions file; raises Refusal, naming the line, at the first one that is not as described above."""
    names = {name: name for name in FIELDS} | dict(mapping or {})
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: cannot be read as UTF-8 text ({error})") from None
    questions: dict[Question, int] = {}
    extra: Counter[str] = Counter()
    repeated, set_aside = 0, []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = _record(where, line)
        question = _question(where, record, names, path)
        extra.update(set(record) - {part for name in names.values() for part in _parts(record, name)})
        if options_problem(question.options):
            set_aside.append(number)
            continue
        repeated += question in questions
        questions.setdefault(question, number)
    if not questions:
        raise Refusal(f"{path}: holds no question")
    notes = [f"{path}: field {name!r} is let be" for name in sorted(extra)]
    if set_aside:
        lines_named = ", ".join(map(str, set_aside[:5])) + (" ..." if len(set_aside) > 5 else "")
        notes.append(
            f"{path}: {len(set_aside)} questions with options that say the same set aside (line {lines_named})"
        )
    if repeated:
        notes.append(f"{path}: {repeated} questions are there again and are asked once")
    return QuestionFile(tuple(questions), tuple(notes))


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write questions so that `read_questions` gives them back exactly."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for one in questions:
            record = {
                "kind": one.kind,
                "topic": one.topic,
                "question_model": one.question_model,
                "question": one.question,
                "options": list(one.options),
                "answer": one.correct,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _record(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise Refusal(f"{where}: JSON, but not an object")
    if not is_unicode(record):
        raise Refusal(f"{where}: holds half of a surrogate pair, which is no character")
    return record


def _parts(record: Mapping[str, Any], name: str) -> list[str]:
    """The fields behind one mapped name: itself, or several as a+b+c+d."""
    return [name] if name in record else name.split("+")


def _question(where: str, record: Mapping[str, Any], names: Mapping[str, str], path: Path) -> Question:
    def value(field: str) -> Any:
        parts = _parts(record, names[field])
        if missing := [part for part in parts if part not in record]:
            if field in _OPTIONAL and names[field] == field:
                return ""
            raise Refusal(
                f"{where}: no field {missing[0]!r}; the line has {', '.join(sorted(record))}: "
                f"say which with --field {field}=NAME"
            )
        return record[parts[0]] if len(parts) == 1 else [record[part] for part in parts]

    texts = {field: value(field) for field in ("question_model", "question", "topic", "kind")}
    for field, text in texts.items():
        if not isinstance(text, str) or not (text.strip() or field in _OPTIONAL):
            raise Refusal(f"{where}: {names[field]!r} must be a text that is not empty")
    options = _options(where, value("options"))
    correct = _correct(where, value("answer"), options)
    kind = texts["kind"] or path.name.split(".")[0].replace("_questions", "")
    return Question(kind, texts["topic"], texts["question_model"], texts["question"], options, correct)


def _options(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        if sorted(value) != list(LETTERS):
            raise Refusal(f"{where}: options must have the keys A, B, C and D, not {', '.join(sorted(value))}")
        value = [value[letter] for letter in LETTERS]
    if not isinstance(value, list):
        raise Refusal(f"{where}: options must be a list of four texts, or an object with the keys A to D")
    problem = options_problem(tuple(value))
    if problem and not problem.endswith("say the same."):
        raise Refusal(f"{where}: {problem}")
    return tuple(value)


def _correct(where: str, value: Any, options: tuple[str, ...]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return value
    readings = set()
    if isinstance(value, str):
        readings = {options.index(value)} if value in options else set()
        readings |= {LETTERS.index(value)} if value in tuple(LETTERS) else set()
    if len(readings) == 1:
        return readings.pop()
    if readings:
        raise Refusal(
            f"{where}: the answer {value!r} is the letter of one option and the text of another; give an index"
        )
    raise Refusal(f"{where}: the answer {value!r} is no index from 0, no letter A to D and no option")

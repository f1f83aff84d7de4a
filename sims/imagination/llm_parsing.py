"""Reading a model's reply: one JSON object of exactly the form that was asked for, or what is wrong with it.

Around the object only white space, one Markdown fence and a leading <think> block are let pass: models add them
whatever they are told, and they carry no answer. Nothing is guessed from prose.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

LETTERS = "ABCD"
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL | re.IGNORECASE)
_REFUSALS = re.compile(
    r"\A\W*(i['’]?m sorry|i am sorry|sorry|i apologize|i can(?:['’]t|not|\snot)|i won['’]?t|i will not"
    r"|i['’]?m (?:unable|not able)|i am (?:unable|not able)|as an ai)\b",
    re.IGNORECASE,
)


class Malformed(ValueError):
    """A reply that is not of the form asked for; its text says why, in words fit to be sent back to the model."""


@dataclass(frozen=True)
class Invented:
    """A question as its question model wrote it: four options in its order, and the index of the correct one."""

    question: str
    options: tuple[str, ...]
    correct: int


def parse_question(text: str) -> Invented:
    """The question in a reply; raises Malformed, also for options that are empty or say the same.

    >>> parse_question('{"question": "Q?", "options": {"A": "a", "B": "b", "C": "c", "D": "d"}, "answer": "B"}').correct
    1
    """
    document = _object(text, {"question", "options", "answer"})
    options = document["options"]
    if not isinstance(options, dict) or list(options) != list(LETTERS):
        raise Malformed('"options" must be an object with the keys "A", "B", "C", "D" in this order.')
    if document["answer"] not in tuple(LETTERS):
        raise Malformed('"answer" must be one of the letters "A", "B", "C", "D".')
    question = document["question"]
    if not isinstance(question, str) or not question.strip():
        raise Malformed('"question" must be a text that is not empty.')
    texts = tuple(options.values())
    if problem := options_problem(texts):
        raise Malformed(problem)
    return Invented(question, texts, LETTERS.index(document["answer"]))


def parse_answer(text: str) -> int | None:
    """The index of the chosen option as it was shown, None where the model declines; raises Malformed.

    >>> parse_answer(' {"answer": "C"} '), parse_answer('{"answer": null}')
    (2, None)
    """
    answer = _object(text, {"answer"})["answer"]
    if answer is None:
        return None
    if answer not in tuple(LETTERS):
        raise Malformed('"answer" must be one of the letters "A", "B", "C", "D", or null.')
    return LETTERS.index(answer)


def options_problem(options: tuple[Any, ...]) -> str:
    """What keeps these from being the options of a question, or nothing.

    Two options are the same if they differ only in case, spacing, Unicode form or a final full stop.

    >>> options_problem(("Iron", "iron.", "Gold", "Tin"))
    'Options A and B say the same.'
    """
    if len(options) != len(LETTERS):
        return f"There must be exactly {len(LETTERS)} options, not {len(options)}."
    if not all(isinstance(option, str) and option.strip() for option in options):
        return "Every option must be a text that is not empty."
    folded = [_folded(option) for option in options]
    for second, option in enumerate(folded):
        if (first := folded.index(option)) < second:
            return f"Options {LETTERS[first]} and {LETTERS[second]} say the same."
    return ""


def is_unicode(document: Any) -> bool:
    r"""Whether every text in a JSON document can be written as UTF-8 (JSON may escape half of a surrogate pair).

    >>> is_unicode(["Zo\u00eb"]), is_unicode(["\ud800"])
    (True, False)
    """
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_refusal(text: str) -> bool:
    """Whether a reply that is not of the form asked for begins as refusals do.

    >>> is_refusal("I'm sorry, but I can't."), is_refusal("The answer is B.")
    (True, False)
    """
    return _REFUSALS.match(_THOUGHT.sub("", text, count=1)) is not None


def _folded(option: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", option).casefold())  # folding takes apart
    return " ".join(folded.split()).rstrip(".").rstrip()


def _object(text: str, keys: set[str]) -> dict[str, Any]:
    bare = _THOUGHT.sub("", text, count=1).strip()
    if fenced := _FENCE.match(bare):
        bare = fenced.group(1)
    try:
        document = json.loads(bare, object_pairs_hook=_without_repetition)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"It is not one JSON object ({error}).") from None
    if not is_unicode(document):
        raise Malformed("It holds half of a surrogate pair, which is no character.")
    if not isinstance(document, dict):
        raise Malformed("It is JSON, but not an object.")
    if set(document) != keys:
        raise Malformed(f"The keys must be {', '.join(sorted(keys))}, not {', '.join(sorted(document)) or 'none'}.")
    return document


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise Malformed("A key is there twice.")
    return document

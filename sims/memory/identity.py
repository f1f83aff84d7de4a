"""When two questions are one: exactly the same bytes, unless normalizing steps are asked for.

A question is normalized before anything sees it, so that two spellings of one question have one context, one state and
one address. The steps and their order are recorded with a memory, since another order can give another text.
"""

import csv
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sims.fact_report import Conflict
from theory.console import Refusal

_EXACT = "exact"
_STEPS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "casefold": str.casefold,
    "space": lambda text: " ".join(text.split()),
}


@dataclass(frozen=True)
class Identity:
    """The steps that a question goes through, in order; none of them means exact bytes.

    >>> Identity.parse("nfc,casefold,space")("  Who WAS Ada? ")
    'who was ada?'
    >>> str(Identity.parse("exact"))
    'exact'
    """

    steps: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Read "exact", or steps separated by commas; raises Refusal for anything else, naming what is known."""
        if text == _EXACT:
            return cls()
        steps = tuple(text.split(","))
        if wrong := [step for step in steps if step not in _STEPS]:
            raise Refusal(
                f"--normalize {text}: {wrong[0]!r} is not known; write {_EXACT}, or one or more of {', '.join(_STEPS)} "
                "separated by commas, without spaces"
            )
        if len(set(steps)) < len(steps):
            raise Refusal(f"--normalize {text}: a step stands there twice; write each once")
        return cls(steps)

    def __str__(self) -> str:
        return ",".join(self.steps) or _EXACT

    def __call__(self, question: str) -> str:
        """The text by which the question is known."""
        for step in self.steps:
            question = _STEPS[step](question)
        return question


def write_conflicts(path: str | os.PathLike[str], conflicts: Sequence[Conflict]) -> int:
    """Write the rows of the conflicts as CSV of line, question, answer in the file's order; returns their number.

    The file can be corrected and read as a file of facts. Raises Refusal if it exists or cannot be written.
    """
    path = Path(path)
    rows = sorted(
        (line, conflict.question, answer)
        for conflict in conflicts
        for answer, lines in conflict.answers.items()
        for line in lines
    )
    try:
        with path.open("x", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("line", "question", "answer"), *rows])
    except FileExistsError:
        raise Refusal(f"{path}: exists already; choose another name or delete it") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    return len(rows)

"""The text around a question that a checkpoint reads, and the flag by which it is typed in a shell."""

import re

import click

from theory.console import Refusal

TEMPLATE = "Q: {question}\nA: "
QUESTION = "{question}"
_ESCAPES = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


def typed(template: str) -> str:
    r"""A template as it is typed, with \n for a new line, \t for a tab and \\ for a backslash.

    Raises Refusal for any other character behind a backslash.

    >>> typed(r"Q: {question}\nA: ") == TEMPLATE
    True
    """

    def meaning(found: re.Match[str]) -> str:
        if found[0] not in _ESCAPES:
            raise Refusal(rf"--template: {found[0]!r} means nothing; write \n, \t, or \\ for a backslash")
        return _ESCAPES[found[0]]

    return re.sub(r"\\.?", meaning, template, flags=re.DOTALL)


template_flag = click.option(
    "--template",
    metavar="TEXT",
    callback=lambda context, parameter, value: None if value is None else typed(value),
    help="What a checkpoint reads: text around {question}, \\n for a new line. It may name special tokens of the "
    "tokenizer, as those of a chat model; in a question they are text. [default: Q: {question}\\nA: ]",
)

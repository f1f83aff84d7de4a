"""The prompts: templates that a reader may edit, from the package or from a folder of the reader's.

The wording of the packaged templates is ours. The study that this protocol follows (arXiv 2407.16604) has a prompt
for direct questions, a pair for context questions (a paragraph, then a question based on it) and one for answers; its
exact words can be put in by writing files of the same names into a folder and naming it with --prompts.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from theory.console import Refusal

# Each template with the words it must use; `$topic` in a template stands for the topic, `$$` for a dollar sign.
PLACEHOLDERS = {
    "direct_question": {"topic"},
    "context_paragraph": {"topic"},
    "context_question": set(),
    "answer": {"question", "options"},
    "repair": {"error"},
}


@dataclass(frozen=True)
class Prompts:
    """The texts of the templates by name."""

    texts: Mapping[str, str]

    def filled(self, name: str, **words: str) -> str:
        """The template with its placeholders replaced; what replaces them is taken literally."""
        return Template(self.texts[name]).substitute(words).strip()

    def fingerprint(self, *names: str) -> str:
        """64 bits in hexadecimal that change when one of the named templates does."""
        text = "\0".join(f"{name}\0{self.texts[name].strip()}" for name in names)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_prompts(folder: Path | None = None) -> Prompts:
    """The packaged templates, each replaced by the file NAME.txt of `folder` where there is one.

    Raises Refusal for a file of another name, and for a template that lacks a placeholder or has an unknown one.

    >>> read_prompts().filled("repair", error="no $JSON").splitlines()[0]
    'Your reply could not be used: no $JSON'
    """
    packaged = files("sims.imagination") / "prompts"
    texts = {name: (packaged / f"{name}.txt").read_text(encoding="utf-8") for name in PLACEHOLDERS}
    if folder is not None:
        if not folder.is_dir():
            raise Refusal(f"{folder}: not a folder; name a folder of templates with --prompts")
        for file in sorted(folder.glob("*.txt")):
            if file.stem not in PLACEHOLDERS:
                raise Refusal(f"{file}: not a template; their names are {', '.join(f'{n}.txt' for n in PLACEHOLDERS)}")
            texts[file.stem] = _checked(file)
    return Prompts(texts)


def _checked(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file}: cannot be read as UTF-8 text ({error})") from None
    template, wanted = Template(text), PLACEHOLDERS[file.stem]
    for line, content in enumerate(text.splitlines(), start=1):
        if not Template(content).is_valid():
            raise Refusal(f"{file}, line {line}: a dollar sign without a word after it; write $$ for a dollar sign")
    found = set(template.get_identifiers())
    if unknown := found - wanted:
        raise Refusal(f"{file}: unknown placeholder ${min(unknown)}; it knows {_listed(wanted)}")
    if missing := wanted - found:
        raise Refusal(f"{file}: lacks the placeholder ${min(missing)}")
    return text


def _listed(words: set[str]) -> str:
    return ", ".join(f"${word}" for word in sorted(words)) or "none"

"""The readable account of the theory, theory/README.md, written from the registry of claims.

`python -m figures.account` writes it and the pictures it shows. Nothing in it is typed twice: statements, proofs,
inequalities and printed numbers are those that `loss-threshold verify` attacks; a test compares the file with what
would be written now.
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import theory
from figures.registry import Drawable
from figures.theory_pictures import GALLERY, all_pictures, png
from theory import box_proofs
from theory.claims import Claim, Published, Record, all_claims
from theory.proof import Inequality, inequalities

README = Path(theory.__file__).with_name("README.md")
SEARCHES = GALLERY / "searches.jsonl"  # a record of `loss-threshold verify --record`, if one is kept
_KINDS = {
    "bound": "an inequality, attacked by search; sharp where a case reaches it",
    "identity": "two computations that share no code",
    "law": "a prediction that falls into a measured interval",
    "record": "published numbers, recomputed",
}
_HELPERS = ("theory.claims", "theory.search", "theory.rounding")


@dataclass(frozen=True)
class Section:
    """A part of the account: the claims it tells, by number, and its pictures."""

    title: str
    words: str
    claims: tuple[str, ...]
    pictures: tuple[str, ...]


SECTIONS = (
    Section(
        "From loss to hallucination",
        "What the training loss of facts says about decoding them. It says less than one hopes, and exactly this much.",
        ("T1", "T2", "T3", "T4", "T5", "T6", "F5"),
        ("feasible-regions",),
    ),
    Section(
        "From bits to loss and hallucination",
        "What a network whose weights take B bits cannot hold, whoever trains it and however.",
        ("T7", "T8", "F1", "T9", "F2", "T10", "F4", "T11", "T12"),
        ("rate-distortion",),
    ),
    Section(
        "From exposures to loss",
        "Why one epoch is not enough, and why facts are to be judged one by one.",
        ("T13", "T14"),
        ("exposures",),
    ),
    Section(
        "Memories with weights written down",
        "Networks that hold what is wanted without training, down to the last bit.",
        ("T15", "T16"),
        ("memorizers",),
    ),
    Section(
        "Questions without an answer in the data",
        "What nobody can know who has not seen it, what it costs to know what one knows, and both limits together.",
        ("T17", "T18", "T19", "T20", "F3", "F6", "F7"),
        ("singletons", "membership", "combined-floor"),
    ),
    Section(
        "A mixture of memory experts",
        "How many facts fit into experts of which each fact reads a few, and what reading costs.",
        ("T21", "T22", "T23", "T24"),
        ("load-thresholds",),
    ),
    Section(
        "Shared imagination",
        "How often two models agree on what neither can know.",
        ("T25",),
        ("agreement",),
    ),
    Section("The cost of clearing the mind", "What it takes to train until no fact is wrong.", ("T26",), ("cost",)),
)


def account() -> str:
    """The text of theory/README.md."""
    claims, pictures, searched = all_claims(), all_pictures(), _searched()
    told = [(section, _claims_of(section, claims)) for section in SECTIONS]
    known = {name for _, names in told for name in names}
    if others := [name for name in claims if name not in known]:
        told.append((Section("Further claims", "", (), ()), others))
    told = [(section, names) for section, names in told if names]
    paragraphs = [*_opening(claims, told), *_disagreements(claims)]
    for number, (section, names) in enumerate(told, 1):
        paragraphs += [f"## {number}. {section.title}", section.words]
        paragraphs += [_picture(pictures[name]) for name in section.pictures]
        for name in names:
            paragraphs += _claim(claims[name], inequalities().get(name, []), searched.get(name))
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def write_account() -> list[Path]:
    """Write the account and its pictures; returns the paths that changed."""
    contents = {GALLERY / f"theory-{name}.png": png(drawable({})) for name, drawable in all_pictures().items()}
    contents[README] = account().encode()
    GALLERY.mkdir(exist_ok=True)
    changed = [path for path, content in contents.items() if not path.exists() or path.read_bytes() != content]
    for path in changed:
        path.write_bytes(contents[path])
    return changed


def _claims_of(section: Section, claims: dict[str, Claim]) -> list[str]:
    """Names of the section's claims: T17b belongs to T17."""
    return [name for number in section.claims for name in claims if re.fullmatch(rf"{number}[a-z]*", name)]


def _opening(claims: dict[str, Claim], told: list[tuple[Section, list[str]]]) -> Iterator[str]:
    yield "# The theory of the loss threshold"
    yield (
        "When does a network hallucinate a fact that it was trained on, or one that it never saw? Each claim "
        "below is a class in this folder, whose docstring is the statement; the same entry is attacked by "
        "`loss-threshold verify`, tested, and drawn. This page is written from those entries by `python -m "
        "figures.account`."
    )
    yield (
        "**Letters.** n facts with distinct questions, V possible answers, loss -ln p of a fact's answer in nats, "
        "L its mean over the facts, M a cap on the loss of any fact; B bits that describe the trained weights, t "
        "failure bits (a statement that may fail with probability 2^-t). A tie counts as a greedy error. *Seen* "
        "questions have their answer in the training data, *unseen* ones do not."
    )
    yield (
        "**Kinds.** "
        + " ".join(f"*{kind.capitalize()}*: {words}." for kind, words in _KINDS.items())
        + (" Every claim has a *control*: one assumption dropped, and the same search must find a counterexample.")
    )
    rows = ["| claim | | kind | status | |", "|---|---|---|---|---|"]
    for section, names in told:
        rows.append(f"| **{section.title}** | | | | |")
        for name in names:
            claim = claims[name]
            marks = [
                word for word, there in (("sharp", claim.witnesses()), ("on boxes", inequalities().get(name))) if there
            ]
            rows.append(
                f"| [{name}](#{_anchor(claim)}) | {_escaped(claim.title)} | {claim.kind} | {claim.status} "
                f"| {', '.join(marks)} |"
            )
    yield "\n".join(rows)
    yield (
        "*Sharp*: a case is known that meets the statement with equality. *On boxes*: the inequalities between "
        "elementary functions that it comes down to are proved by ball arithmetic on whole boxes (`loss-threshold "
        "verify --prove`)."
    )


def _disagreements(claims: dict[str, Claim]) -> Iterator[str]:
    """Printed numbers that do not come out when they are recomputed."""
    rows = [
        f"| {_escaped(one.what)} | {_linked(claim.source)} | {_number(one.printed)} | {_number(one.recomputed)} "
        f"| [{name}](#{_anchor(claim)}) |"
        for name, claim in claims.items()
        if isinstance(claim, Record)
        for one in claim.published()
        if not one.agrees
    ]
    if rows:
        yield "**Where a paper is wrong or misprinted.** These printed numbers do not come out:"
        yield "\n".join(["| | printed in | printed | recomputed | claim |", "|---|---|---|---|---|", *rows])


def _picture(drawable: Drawable) -> str:
    code = _link(drawable.draw, f"figures/{_file(drawable.draw)}", folder="../figures/")
    shown = ", ".join(f"[{name}](#{_anchor(all_claims()[name])})" for name in drawable.claims)
    image = f"![{_escaped(drawable.caption)}](../figures/gallery/theory-{drawable.name}.png)"
    return f"{image}\n\n*{_escaped(drawable.caption)}* Claims {shown}; drawn by {code}."


def _claim(claim: Claim, on_boxes: list[Inequality], searched: int | None) -> Iterator[str]:
    yield f"### {_heading(claim)}"
    yield _escaped(claim.statement)
    if isinstance(claim, Record):
        yield _table(claim.published())
    yield f"*Proof.* {_escaped(claim.proof)}" if claim.status == "proved" else f"*Why.* {_escaped(claim.proof)}"
    points = [
        f"{claim.kind.capitalize()}, {claim.status}"
        + (", sharp" if claim.witnesses() else "")
        + (f", searched {searched:,} examples" if searched else ""),
        f"assumes: {_escaped('; '.join(claim.assumptions))}",
        f"control: {_escaped(claim.dropped)}",
    ]
    if on_boxes:
        line = _line_of(Path(box_proofs.__file__), f'"{on_boxes[0].name}"')
        stated = "; ".join(_escaped(one.statement) for one in on_boxes)
        points.append(f"proved on boxes ([`box_proofs.py`](box_proofs.py#L{line})): {stated}")
    functions = ", ".join(_link(one, f"{_file(one).removesuffix('.py')}.{one.__name__}") for one in _functions(claim))
    points.append(f"code: claim {_link(type(claim), _file(type(claim)))}" + (f"; {functions}" if functions else ""))
    points.append(f"source: {_linked(claim.source)}")
    yield "\n".join(f"- {point}" for point in points)


def _table(published: Iterable[Published]) -> str:
    rows = [
        f"| {_escaped(one.what)} | {_number(one.printed)} | {_number(one.recomputed)} | {one.ratio:.4g} "
        f"| {'yes' if one.agrees else '**no**'} |"
        for one in published
    ]
    return "\n".join(["| | printed | recomputed | ratio | agrees |", "|---|---|---|---|---|", *rows])


def _functions(claim: Claim) -> list[Callable]:
    """The public functions of the theory that the claim's class calls, in the order in which it does."""
    own = type(claim).__module__
    names = vars(importlib.import_module(own))
    found: dict[str, Callable] = {}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(type(claim))))):
        value = None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            value = getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
        elif isinstance(node, ast.Name):
            value = names.get(node.id)
        home = getattr(value, "__module__", "")
        if inspect.isfunction(value) and home.startswith("theory.") and home not in _HELPERS and home != own:
            found.setdefault(f"{home}.{value.__name__}", value)
    return list(found.values())


def _searched() -> dict[str, int]:
    """Examples of the longest recorded search of each claim that passed."""
    found: dict[str, int] = {}
    for line in SEARCHES.read_text().splitlines() if SEARCHES.exists() else ():
        report = json.loads(line)
        if report["passed"]:
            found[report["claim"]] = max(report["examples"], found.get(report["claim"], 0))
    return found


def _heading(claim: Claim) -> str:
    return f"{claim.name}. {_escaped(claim.title)}"


def _anchor(claim: Claim) -> str:
    """As GitHub makes it from the heading."""
    return re.sub(r"[^\w\- ]", "", f"{claim.name}. {claim.title}".lower()).replace(" ", "-")


def _file(thing: Callable) -> str:
    return Path(inspect.getsourcefile(inspect.unwrap(thing)) or "").name


def _link(thing: Callable, words: str, folder: str = "") -> str:
    line = inspect.getsourcelines(inspect.unwrap(thing))[1]
    return f"[`{words}`]({folder}{_file(thing)}#L{line})"


def _line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def _linked(source: str) -> str:
    return re.sub(r"(arXiv )?(?<![\d.])(\d{4}\.\d{4,5})", r"[\1\2](https://arxiv.org/abs/\2)", _escaped(source))


def _number(value: float) -> str:
    return f"{value:.5g}"


def _escaped(text: str) -> str:
    """Plain text as Markdown shows it unchanged."""
    return re.sub(r"([\\`*_<|\[\]~])", r"\\\1", text)


def main() -> None:
    """Write the account and its pictures, and say what changed."""
    changed = write_account()
    for path in changed:
        print(path)
    if not changed:
        print("nothing changed")


if __name__ == "__main__":
    main()

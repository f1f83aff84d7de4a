"""What a memory recalls, what it answers without being asked to, and what it does to text that it should leave alone.

Every number is counted on questions whose fate is known: other wordings of stored facts, questions that are not stored,
text that the frozen model has never seen. The bank is read once with the gate open; any gate can then be put before it.

Letters: n questions, s tokens, k experts a token.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from mome_jax.cuckoo import build_filter
from mome_jax.disk import DiskBank
from mome_jax.gate import gated, rate_interval
from mome_jax.index import Selection
from sims.fact_files import read_questions
from sims.fact_report import Facts, Row, facts_from_rows
from sims.keyed import keyed_order, keyed_words, text_hash
from sims.measures import measure
from sims.memory.addressing import Asked
from sims.memory.backbone import Backbone, hidden_states
from sims.memory.due import tokens_due
from sims.memory.folder import Settings
from sims.memory.known import Index, calibrated_radius, fingerprints_of
from sims.memory.memory import Memory
from sims.tokens import tokenize
from theory.console import Refusal

_AT_ONCE = 4096  # tokens whose logits are compared together,
_MOST_LOGITS = 1 << 24  # unless they are more than these


@dataclass(frozen=True)
class Rate:
    """How often something happened, of how many times it could.

    >>> print(Rate(1, 100))
    1.00 % (0.03-5.45)
    """

    count: int
    asked: int

    @property
    def share(self) -> float:
        """The rate; NaN if nothing was asked."""
        return self.count / self.asked if self.asked else float("nan")

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where the true rate lies, by Clopper and Pearson."""
        return rate_interval(self.count, self.asked, confidence)

    def __str__(self) -> str:
        if not self.asked:
            return "none asked"
        lower, upper = self.interval()
        return f"{100 * self.share:.2f} % ({100 * lower:.2f}-{100 * upper:.2f})"


@dataclass(frozen=True, eq=False)
class Paraphrases:
    """One wording of each of some facts, another wording of each, and wordings of facts that are not stored."""

    stored: Facts
    asked: tuple[str, ...]  # entry i is another wording of stored fact i
    unknown: tuple[str, ...]


def read_paraphrases(path: str | Path, facts: int, *, unknown: int = 2000, seed: int = 0) -> Paraphrases:
    """Draw facts that have two wordings or more from a file of columns question, answer, fact_id, pattern_id.

    Wordings that stand for several facts are left out first. Raises Refusal if the file has too few such facts.
    """
    columns = (read_questions(path, name) for name in ("question", "answer", "fact_id"))
    rows = list(dict.fromkeys(zip(*columns, strict=True)))
    facts_of = Counter(question for question, _, _ in rows)
    wordings: dict[tuple[str, str], list[str]] = defaultdict(list)
    for question, answer, fact in rows:
        if facts_of[question] == 1:
            wordings[fact, answer].append(question)
    found = [(answer, texts) for (_, answer), texts in wordings.items() if len(texts) > 1]
    if len(found) < facts + unknown:
        raise Refusal(f"{path}: {len(found)} facts have two wordings of their own, {facts} + {unknown} are needed")
    drawn = [found[place] for place in keyed_order(seed, "paraphrased facts", len(found))[: facts + unknown].tolist()]
    two = [texts[:2] for texts in (_shuffled(texts, seed) for _, texts in drawn)]
    rows = [Row(pair[0], answer, line) for line, ((answer, _), pair) in enumerate(zip(drawn, two, strict=True), 1)]
    asked, others = [pair[1] for pair in two[:facts]], [pair[0] for pair in two[facts:]]
    return Paraphrases(facts_from_rows(rows[:facts], source=str(path)), tuple(asked), tuple(others))


def one_edit(questions: Sequence[str], *, seed: int = 0) -> list[str]:
    """Each question with one character inserted, deleted or replaced; where that gives one of them, another place.

    Characters come from the questions themselves. A question of one character never loses it.
    """
    taken = set(questions)
    alphabet = sorted(set("".join(questions)))
    found = []
    for row, question in enumerate(questions):
        for attempt in range(1000):
            words = keyed_words(seed, f"edit {attempt}", np.array([row]), 3)[0]
            kind, place, letter = (int(word) for word in words)
            kind, character = kind % 3, alphabet[letter % len(alphabet)]
            at = place % (len(question) + (kind == 0))
            edited = question[:at] + (character if kind < 2 else "") + question[at + (kind > 0) :]
            if edited and edited not in taken:
                break
        else:
            raise Refusal(f"{question!r}: every edit of one character is a question that is stored")
        found.append(edited)
    return found


def accepted(index: Index, settings: Settings, questions: Sequence[str]) -> Rate:
    """How many of these questions the memory takes for known ones."""
    return Rate(int(np.sum(index.asked(questions, settings).known)), len(questions))


@dataclass(frozen=True, eq=False)
class Read:
    """What the bank says to each question if it may: through rows of the question's own, and as a question alike."""

    questions: tuple[str, ...]
    as_stored: tuple[str | None, ...]  # None where no end came
    as_alike: tuple[str | None, ...]
    likeness: Float32[np.ndarray, " n"]  # what the gate goes by


def read_open(memory: Memory, questions: Sequence[str], *, snap: bool = True) -> Read:
    """Decode every question twice with the gate open, from the saved bank: as itself, and as `Index.asked` reads it.

    Without `snap` a question that is alike keeps its own vector: what learned addresses find by themselves.
    """
    own = fingerprints_of(questions, memory.settings.seed)
    vectors, share = memory.index.queries.with_known_share(questions)
    nearest, likeness = memory.index.nearest(vectors, 1)
    yes = np.ones(len(questions), bool)
    kind = memory.settings.addresses
    stored = _texts(memory, questions, Asked(own, vectors, yes, yes))  # pyright: ignore[reportArgumentType]
    alike = stored
    if kind != "exact":
        vectors = memory.index.vectors[nearest[:, 0]] if snap else vectors
        identities = memory.index.identities[nearest[:, 0]] if kind == "nearest" else own
        alike = _texts(memory, questions, Asked(identities, vectors, yes & (kind == "nearest"), yes))  # pyright: ignore[reportArgumentType]
    return Read(tuple(questions), stored, alike, likeness[:, 0] * np.sqrt(share))


@dataclass(frozen=True)
class Gate:
    """A filter and a radius for one wanted rate of false acceptance, as a memory built for that rate has them."""

    index: Index
    settings: Settings

    @classmethod
    def of(cls, memory: Memory, rate: float) -> "Gate":
        """The gate that this memory would have."""
        settings = replace(memory.settings, false_acceptance=rate)
        exact = settings.addresses == "exact"
        radius = np.inf if exact else calibrated_radius(memory.facts.questions, rate, settings.seed)
        built = build_filter(memory.index.identities, rate)
        return cls(replace(memory.index, filter=built, radius=float(radius)), settings)

    def passes(self, read: Read) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """(Taken for a stored question, known at all)."""
        inside = self.index.holds(fingerprints_of(read.questions, self.settings.seed), self.settings)
        return inside, inside | (read.likeness > self.index.radius)


@dataclass(frozen=True)
class Verdict:
    """What became of some questions."""

    right: Rate
    wrong: Rate
    unknown: Rate


def verdict(read: Read, wanted: Sequence[str | None], gate: Gate | None = None) -> Verdict:
    """Right, wrong and unknown; None is wanted where no answer is right. Without a gate all are known, none stored."""
    inside = np.zeros(len(read.questions), bool)
    known = ~inside
    if gate is not None:
        inside, known = gate.passes(read)
    own = read.as_stored, read.as_alike
    said = [own[0][row] if inside[row] else own[1][row] for row in range(len(read.questions))]
    right = np.array([answer is not None and answer == want for answer, want in zip(said, wanted, strict=True)], bool)
    counts = (known & right).sum(), (known & ~right).sum(), (~known).sum()
    return Verdict(*(Rate(int(count), len(known)) for count in counts))


@dataclass(frozen=True, eq=False)
class Effect:
    """What a memory does to the prediction of given text, token by token."""

    known: Bool[np.ndarray, " s"]
    unchanged: Bool[np.ndarray, " s"]  # every logit has the bits that it has without a memory
    losses_before_nats: Float64[np.ndarray, " s"]
    losses_after_nats: Float64[np.ndarray, " s"]

    @property
    def change_nats(self) -> float:
        """Mean change of the loss of a token."""
        return float(np.mean(self.losses_after_nats - self.losses_before_nats))


def effect(memory: Memory, questions: Sequence[str], answers: Sequence[str], *, open_gate: bool = False) -> Effect:
    """The loss of each token of each answer after its question, by the frozen model alone and with the memory.

    With an open gate every question counts as known. Raises Refusal if a text is longer than the model's context.
    """
    tokens = tokenize(questions, answers, memory.vocabulary, longest=memory.backbone.context)
    asked = memory.index.asked(questions, memory.settings)
    if open_gate:
        asked = asked._replace(known=np.ones(len(questions), bool))
    states = hidden_states(memory.backbone, tokens.tokens, tokens.answer_mask)
    due = tokens_due(tokens, asked, memory.addressing, memory.settings.chosen, memory.settings.seed)
    known = np.asarray(asked.known)[due.facts]
    before, after = (np.empty(len(due)) for _ in range(2))
    unchanged = np.empty(len(due), bool)
    at_once = max(1, min(_AT_ONCE, _MOST_LOGITS // memory.backbone.vocabulary))
    for start in range(0, len(due), at_once):
        some = slice(start, min(len(due), start + at_once))
        rows = np.resize(np.arange(some.start, some.stop), at_once)  # one shape is one compilation
        experts, weights = (jnp.asarray(np.asarray(half)[rows]) for half in due.selection)
        shifted = _shifted(
            memory.bank, jnp.asarray(states[rows]), Selection(experts, weights), jnp.asarray(known[rows])
        )
        count = some.stop - some.start
        logits = [np.asarray(_logits(memory.backbone, each))[:count] for each in (jnp.asarray(states[rows]), shifted)]
        before[some], after[some] = (measure(each, due.targets[some]).loss_nats for each in logits)
        unchanged[some] = (logits[0].view(np.uint32) == logits[1].view(np.uint32)).all(axis=1)
    return Effect(known, unchanged, before, after)


def _shifted(
    bank: DiskBank, states: Float[Array, "s v"], selection: Selection, known: Bool[Array, " s"]
) -> Float[Array, "s v"]:
    """The states as decoding has them after it asked the memory."""
    rows = bank.gather(selection.experts)
    shifts = jax.vmap(lambda of_one, weights: of_one.answer(weights))(rows, selection.weights)
    return jax.vmap(gated)(known, states, shifts)


@jax.jit
def _logits(backbone: Backbone, states: Float[Array, "s v"]) -> Float[Array, "s V"]:
    return jax.vmap(backbone.unembed)(states)


def _texts(memory: Memory, questions: Sequence[str], asked: Asked) -> tuple[str | None, ...]:
    decoded = memory.decode(questions, asked)
    return tuple(
        memory.vocabulary.decode(decoded.said(row)) if decoded.ended[row] else None for row in range(len(questions))
    )


def _shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """In an order that depends on the texts themselves."""
    return sorted(texts, key=lambda text: (text_hash(text, f"wording {seed}"), text))

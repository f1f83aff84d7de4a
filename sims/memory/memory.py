"""A memory as its user has it: load a folder, ask a question.

Every answer is decoded by the frozen backbone from the saved files: state, experts, state, logits, token. Of the bank
only the rows that are chosen are read. A question that is not known passes through the backbone bit for bit as if
there were no memory, and is reported as unknown.

Letters: k experts chosen, v width of a state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Float

from mome_jax.addresses import Fingerprint, extend, start
from mome_jax.disk import DiskBank
from mome_jax.experts import Values, read
from mome_jax.index import Selection
from sims.fact_files import read_facts
from sims.fact_report import Facts
from sims.memory.addressing import Addressing, Asked, answer_seed
from sims.memory.backbone import ByteBackbone
from sims.memory.decoding import Context, Decoded, Recall, greedy
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.known import Index, question_tokens
from sims.memory.memorizing import load_backbone
from sims.tokens import ByteVocabulary
from theory.console import Refusal

_NEAREST = 3  # stored questions that are named when a question is unknown
_ROOM = 64  # tokens of an answer, unless stored ones are longer


@dataclass(frozen=True)
class Answer:
    """What the model says to a question."""

    question: str
    known: bool
    text: str  # what the memory answers if the question is known, and else what the backbone alone says
    probabilities: tuple[float, ...]  # of each byte and of the end, given those before it
    ended: bool  # rather than cut off for want of room
    experts: tuple[tuple[int, ...], ...] = ()  # that were read for each token, if one question was asked and is known
    nearest: tuple[tuple[str, float], ...] = ()  # the stored questions most like an unknown one, with their likeness

    @property
    def least_probability(self) -> float:
        """The probability of the token of which the model was least sure."""
        return min(self.probabilities, default=0.0)


@tree_util.register_dataclass
@dataclass(frozen=True)
class Recaller:
    """What decoding asks before each token."""

    addressing: Addressing
    bank: Values | None  # in memory, or else
    disk: DiskBank | None = field(metadata={"static": True})
    chosen: int = field(metadata={"static": True})

    def __call__(self, context: Context, state: Float[Array, " v"]) -> Recall:
        """The shift of the state that the chosen experts make."""
        asked: Asked = context.question
        selection = self.addressing.select(asked, context.fingerprint, self.chosen)
        bank = self.bank if self.bank is not None else self.disk
        assert bank is not None
        return Recall(read(bank, selection), asked.known)


@dataclass(frozen=True, eq=False)
class Memory:
    """A memory that can be asked. `close` it, or use it as a context, to release its bank."""

    folder: Folder
    settings: Settings
    backbone: ByteBackbone
    index: Index
    addressing: Addressing
    bank: DiskBank

    @classmethod
    def load(cls, path: str | Path) -> "Memory":
        """Open the memory in a folder; raises Refusal if it is none, incomplete or damaged."""
        folder = Folder(path)
        header = folder.read_header()
        if "pending" in header:
            with folder.only_writer():
                header = folder.settle()
        if not header.get("complete"):
            raise Refusal(f"{folder.path}: is not complete; run the `mome memorize` that began it again")
        settings = folder.settings()
        index = Index.read(folder)
        try:
            bank = DiskBank.open(folder.bank)
        except ValueError as error:
            raise Refusal(str(error)) from None
        addressing = Addressing.of(settings, index.queries.width)
        return cls(folder, settings, load_backbone(folder), index, addressing, bank)

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the bank's file."""
        self.bank.close()

    @cached_property
    def facts(self) -> Facts:
        """The stored facts, as a table that was written beside the bank."""
        return read_facts(self.folder.facts)

    def ask(self, question: str) -> Answer:
        """The answer to one question, with the experts that it was read from."""
        answer = self.ask_all([question])[0]
        if not answer.known:
            return answer
        asked = self.index.asked([self.identity(question)], self.settings)
        one = Asked(*(leaf[0] for leaf in asked))
        fingerprint, experts = start(answer_seed(self.settings.seed)), []
        for token in [*answer.text.encode(), ByteVocabulary().content + 1]:
            selection = _selected(self.addressing, one, fingerprint, self.settings.chosen)
            experts.append(tuple(np.asarray(selection.experts).tolist()))
            fingerprint = extend(fingerprint, jnp.int32(token))
        return replace(answer, experts=tuple(experts))

    @cached_property
    def identity(self) -> Identity:
        """How a question is normalized before anything sees it."""
        return Identity.parse(self.settings.normalize) if self.settings.normalize else Identity()

    def ask_all(
        self,
        questions: Sequence[str],
        *,
        name_nearest: bool = True,
        advance: Callable[[float], None] = lambda work: None,
    ) -> list[Answer]:
        """The answers to many questions; `advance` is told the number of answers finished.

        Raises Refusal for a question that is empty, or too long for the backbone.
        """
        asked_texts = [self.identity(question) for question in questions]
        asked = self.index.asked(asked_texts, self.settings)
        decoded = self.decode(asked_texts, asked, advance=advance)
        nearest = self._nearest(asked_texts, asked) if name_nearest else {}
        vocabulary = ByteVocabulary()
        return [
            Answer(
                question,
                bool(asked.known[row]),
                vocabulary.decode(decoded.tokens[row, : decoded.lengths[row]].tolist()),
                tuple(decoded.probabilities[row, : decoded.lengths[row]].tolist()),
                bool(decoded.ended[row]),
                nearest=nearest.get(row, ()),
            )
            for row, question in enumerate(questions)
        ]

    def decode(
        self, questions: Sequence[str], asked: Asked, *, advance: Callable[[float], None] = lambda work: None
    ) -> Decoded:
        """The answers as tokens, to questions that are taken for what `asked` says."""
        tokens, lengths = question_tokens(questions)
        for question, length in zip(questions, lengths, strict=True):
            if not 1 < length < self.backbone.context:
                raise Refusal(
                    f"a question has 1 to {self.backbone.context - 2} bytes here, and {question[:40]!r} has "
                    f"{length - 1}; shorten it"
                )
        return greedy(
            self.backbone,
            tokens,
            lengths,
            end=ByteVocabulary().content + 1,
            room=self.room,
            memory=Recaller(self.addressing, None, self.bank, self.settings.chosen),
            data=asked,
            fingerprint_seed=answer_seed(self.settings.seed),
            advance=advance,
        )

    @cached_property
    def room(self) -> int:
        """Tokens that an answer may have: those of the longest stored one, and never fewer than 64."""
        longest = max((len(answer.encode()) for answer in self.facts.answers), default=0)
        return min(self.backbone.context, max(_ROOM, longest + 1))

    def _nearest(self, questions: Sequence[str], asked: Asked) -> dict[int, tuple[tuple[str, float], ...]]:
        unknown = np.flatnonzero(~np.asarray(asked.known))
        if not unknown.size:
            return {}
        vectors = self.index.queries([questions[row] for row in unknown.tolist()])
        rows, likeness = self.index.nearest(vectors, _NEAREST)
        return {
            int(row): tuple(
                (self.facts.questions[int(near)], round(float(like), 3))
                for near, like in zip(rows[place], likeness[place], strict=True)
                if like > 0
            )
            for place, row in enumerate(unknown)
        }


@partial(jax.jit, static_argnames="chosen")
def _selected(addressing: Addressing, asked: Asked, answer: Fingerprint, chosen: int) -> Selection:
    return addressing.select(asked, answer, chosen)

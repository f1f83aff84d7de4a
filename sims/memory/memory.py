"""A memory as its user has it: load a folder, ask a question.

Every answer is decoded by the frozen backbone from the saved files: state, experts, state, logits, token. Of the bank
only the rows that are chosen are read, and compared with their checksums. A question that is not known passes through
the backbone bit for bit as if there were no memory, and is reported as unknown.

Letters: k experts chosen, t tokens of an answer, v width of a state.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax import tree_util
from jaxtyping import Array, Float, Int32

from mome_jax.disk import DiskBank
from mome_jax.experts import Values, read
from sims.fact_files import check_text
from sims.fact_report import Facts
from sims.memory.addressing import Addressing, Asked, answer_seed
from sims.memory.backbone import CachedBackbone
from sims.memory.decoding import Context, Decoded, Recall, greedy
from sims.memory.due import answers_before, experts_of
from sims.memory.files import refusals
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.known import Index
from sims.memory.model import Model, model_of
from sims.memory.saved import check_arrays, mapped_values, open_bank, stored_facts
from sims.tokens import Vocabulary, prompts_of
from theory.console import Refusal

_NEAREST = 3  # stored questions that are named when a question is unknown
_ROOM = 64  # tokens of an answer, unless stored ones are longer
_TOKENS_COMPARED = 16384  # whose rows are compared with their checksums together
_ATTEMPTS, _SECONDS_BETWEEN = 10, 0.2  # to open a memory while somebody writes to it


@dataclass(frozen=True, eq=False)
class Answer:
    """What the memory says to a question; nothing if the question is unknown."""

    question: str
    known: bool
    content: bytes = b""  # as the model wrote it
    probabilities: tuple[float, ...] = ()  # of each token and of the end, given those before it
    ended: bool = False  # rather than cut off for want of room
    experts: Int32[np.ndarray, "t k"] | None = None  # that were read for each token and for the end
    nearest: tuple[tuple[str, float], ...] = ()  # the stored questions most like an unknown one, with their likeness

    @property
    def text(self) -> str | None:
        """The answer; what is no UTF-8 in it becomes the replacement character. None if the question is unknown."""
        return self.content.decode(errors="replace") if self.known else None

    @property
    def least_probability(self) -> float:
        """The probability of the token of which the model was least sure."""
        return min(self.probabilities, default=0.0)

    def is_exactly(self, text: str) -> bool:
        """Whether the memory knows the question and answers this, to the last byte."""
        return self.known and self.ended and self.content == text.encode()


@tree_util.register_dataclass
@dataclass(frozen=True)
class Recaller:
    """What decoding asks before each token."""

    addressing: Addressing
    bank: Values
    chosen: int = field(metadata={"static": True})

    def __call__(self, context: Context, state: Float[Array, " v"]) -> Recall:
        """The shift of the state that the chosen experts make."""
        asked: Asked = context.question
        selection = self.addressing.select(asked, context.fingerprint, self.chosen)
        return Recall(read(self.bank, selection), asked.known)


@dataclass(frozen=True, eq=False)
class Memory:
    """A memory that can be asked. `close` it, or use it as a context, to release its bank."""

    folder: Folder
    header: dict[str, Any]
    settings: Settings
    model: Model
    index: Index
    addressing: Addressing
    bank: DiskBank

    @classmethod
    def load(cls, path: str | Path, *, moved_checkpoint: Path | None = None) -> "Memory":
        """Open the memory in a folder; raises Refusal if it is none, incomplete or damaged, or its checkpoint is gone.

        `moved_checkpoint` is where that lies now, if not where it was when the facts were memorized.
        """
        folder = Folder(path, moved_checkpoint)
        refused = Refusal(f"{folder.path}: another process is changing this memory; try again")
        for _ in range(_ATTEMPTS):
            header = folder.complete_header()
            try:
                if "pending" in header:  # a process was killed while it replaced files, or is replacing them now
                    with folder.only_writer() as header:
                        pass
                memory = cls._open(folder, header)
            except Refusal as refusal:
                refused = refusal
                if folder.read_header() == header and "pending" not in header:
                    raise
            else:
                if folder.read_header() == header:
                    return memory
                memory.close()  # files of before and after a change
            time.sleep(_SECONDS_BETWEEN)
        raise refused

    @classmethod
    def _open(cls, folder: Folder, header: dict[str, Any]) -> "Memory":
        check_arrays(folder, header)
        settings, index = folder.settings(), Index.read(folder)
        addressing = Addressing.of(settings, index.queries.width)
        return cls(folder, header, settings, model_of(folder), index, addressing, open_bank(folder))

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the bank's file."""
        self.bank.close()

    @property
    def backbone(self) -> CachedBackbone:
        """The frozen model."""
        return self.model.backbone

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the frozen model."""
        return self.model.vocabulary

    @cached_property
    def facts(self) -> Facts:
        """The stored facts, as a table that was written beside the bank."""
        return stored_facts(self.folder, self.header)

    @cached_property
    def identity(self) -> Identity:
        """How a question is normalized before anything sees it."""
        return Identity.parse(self.settings.normalize)

    def ask(self, question: str) -> Answer:
        """The answer to one question."""
        return self.ask_all([question])[0]

    def ask_all(
        self,
        questions: Sequence[str],
        *,
        name_nearest: bool = True,
        advance: Callable[[float], None] = lambda work: None,
    ) -> list[Answer]:
        """The answers to many questions; `advance` is told the number of answers finished.

        Raises Refusal for a question that is no text, and for rows of the bank that do not have their checksums.
        """
        texts = [self.identity(question) for question in questions]
        for text in texts:
            check_text("a question", text)
        asked = self._asked(texts)
        known: list[int] = np.flatnonzero(np.asarray(asked.known)).tolist()
        advance(len(texts) - len(known))
        of_known = Asked(*(leaf[np.array(known, int)] for leaf in asked))
        decoded = self.decode([texts[row] for row in known], of_known, advance=advance)
        experts = self._experts(of_known, decoded)
        nearest = self._nearest(texts, np.flatnonzero(~np.asarray(asked.known)).tolist()) if name_nearest else {}
        answers = [Answer(question, False, nearest=nearest.get(row, ())) for row, question in enumerate(questions)]
        for place, row in enumerate(known):
            written = slice(0, decoded.lengths[place])
            content = self.vocabulary.spell(decoded.said(place))
            probabilities = tuple(decoded.probabilities[place, written].tolist())
            ended = bool(decoded.ended[place])
            answers[row] = Answer(questions[row], True, content, probabilities, ended, experts[place])
        return answers

    def decode(
        self, questions: Sequence[str], asked: Asked, *, advance: Callable[[float], None] = lambda work: None
    ) -> Decoded:
        """The answers as tokens, to normalized questions that are taken for what `asked` says.

        To one that is not known it is what the backbone says alone. Raises Refusal for a question that is too long.
        """
        tokens, lengths = prompts_of(self.vocabulary, questions)
        if len(lengths) and lengths.max() >= self.backbone.context:
            longest = questions[int(lengths.argmax())]
            raise Refusal(
                f"{longest[:40]!r}...: has {lengths.max()} tokens, and the backbone reads at most "
                f"{self.backbone.context - 1} before an answer; shorten it"
            )
        return greedy(
            self.backbone,
            tokens,
            lengths,
            end=self.vocabulary.end,
            room=self.room,
            memory=Recaller(self.addressing, self._values, self.settings.chosen),
            data=asked,
            fingerprint_seed=answer_seed(self.settings.seed),
            advance=advance,
        )

    @cached_property
    def room(self) -> int:
        """Tokens that an answer may have: enough for the longest stored one, and never fewer than 64."""
        longest = max(_ROOM, int(self.header["longest_answer"]))
        return min(self.backbone.context, 1 << (longest - 1).bit_length())  # few different rooms, few compilations

    @cached_property
    def _values(self) -> Values:
        return mapped_values(self.bank)

    def _asked(self, texts: Sequence[str]) -> Asked:
        """What each question is taken for. One too long to be stored is unknown, whatever the filter says."""
        asked = self.index.asked(texts, self.settings)
        short = np.array([len(self.vocabulary.prompt(text)) < self.backbone.context for text in texts], bool)
        return asked._replace(known=np.asarray(asked.known) & short)  # pyright: ignore[reportArgumentType]

    def _experts(self, asked: Asked, decoded: Decoded) -> list[Int32[np.ndarray, "t k"]]:
        """The experts of each token of each answer, after a look at the checksums of their rows."""
        rows, places = np.nonzero(np.arange(decoded.tokens.shape[1]) < decoded.lengths[:, None])
        so_far = answers_before(decoded.tokens, np.zeros(len(decoded.tokens), np.int32), self.settings.seed)
        chosen = self.settings.chosen
        experts = np.asarray(experts_of(rows, so_far[rows, places], asked, self.addressing, chosen).experts)
        with refusals():
            for start in range(0, len(experts), _TOKENS_COMPARED):
                self.bank.read_rows(np.unique(experts[start : start + _TOKENS_COMPARED]))
        return np.split(experts, np.cumsum(decoded.lengths)[:-1]) if len(rows) else []

    def _nearest(self, texts: Sequence[str], unknown: Sequence[int]) -> dict[int, tuple[tuple[str, float], ...]]:
        """For each unknown question the stored ones most like it."""
        if not unknown:
            return {}
        found, likeness = self.index.nearest(self.index.queries([texts[row] for row in unknown]), _NEAREST)
        return {
            row: tuple(
                (self.facts.questions[near], round(like, 3))
                for near, like in zip(found[place].tolist(), likeness[place].tolist(), strict=True)
                if like > 0
            )
            for place, row in enumerate(unknown)
        }

"""One fact inserted, changed or deleted; which other facts move, and how far; taken back to the same bits.

An edit is a least-norm change of a few rows of the bank on disk. The facts that read these rows are protected: their
own rows take part, so that their answers stay. Then their losses are computed anew. An edit that would bring a fact
above the threshold is not made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64

from mome_jax import editing
from mome_jax.cross_entropy import wanted_shift
from mome_jax.disk import DiskBank
from mome_jax.fact_rows import FactRows
from mome_jax.index import Selection
from mome_jax.saving import load, save
from sims.fact_files import read_facts
from sims.fact_report import Facts, Row, facts_from_rows
from sims.memory.addressing import Addressing, Asked
from sims.memory.backbone import ByteBackbone, hidden_states
from sims.memory.due import Due, tokens_due
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.known import Index
from sims.memory.memorizing import MARGIN, load_backbone, read_tokens, unembed, write_table
from theory.console import Refusal

_NAMED = 10


@dataclass(frozen=True)
class Changed:
    """What an edit did, or would have done."""

    question: str
    before: str | None  # the stored answer; None where there was none
    after: str | None
    done: bool
    worst_nats: float  # of the fact's tokens after the edit; NaN where it was deleted
    moved: tuple[tuple[str, float, float], ...]  # question, distance its output moved, its worst token loss afterwards
    facts: int  # that are stored
    undone: bool = False

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "question": self.question,
            "before": self.before,
            "after": self.after,
            "done": self.done,
            "undone": self.undone,
            "worst_token_nats": self.worst_nats,
            "facts": self.facts,
            "moved": [
                {"question": question, "distance": distance, "worst_token_nats": loss}
                for question, distance, loss in self.moved
            ],
        }

    def lines(self) -> list[str]:
        """The report for people."""
        what = "taken back" if self.undone else "done" if self.done else "NOT done: it would unsettle other facts"
        lines = [f"{self.question!r}: {self.before!r} -> {self.after!r}, {what}"]
        if self.undone:
            return lines
        farthest = max((distance for _, distance, _ in self.moved), default=0.0)
        worst = max((loss for _, _, loss in self.moved), default=0.0)
        lines.append(
            f"{len(self.moved)} of {self.facts:,} other facts read a row that changed; the farthest moved by "
            f"{farthest:.2g}, the worst of their tokens has {worst:.3f} nats; all others are the same bits"
        )
        lines += [f"  {question!r} moved by {distance:.2g}" for question, distance, _ in self.moved[:_NAMED]]
        return lines


def change_fact(folder: Folder, question: str, answer: str | None) -> Changed:
    """Store this answer to a question, new or known; or forget the question if the answer is None.

    Raises Refusal if there is nothing to do, or for a question or answer that cannot be stored.
    """
    with folder.only_writer():
        folder.settle()
        stored = _Stored(folder)
        question = stored.identity(question)
        before = dict(zip(stored.facts.questions, stored.facts.answers, strict=True)).get(question)
        if before == answer:
            what = "is not stored" if answer is None else "has that answer already"
            raise Refusal(f"{folder.path}: {question!r} {what}; nothing was changed")
        return stored.change(question, before, answer)


def undo_last(folder: Folder) -> Changed:
    """Take back the last edit: the bank has the same bits as before it."""
    with folder.only_writer():
        folder.settle()
        edits = sorted(folder.edits.glob("*.safetensors"))
        if not edits:
            raise Refusal(f"{folder.path}: no edit is left to take back")
        arrays, made = load(edits[-1])
        stored = _Stored(folder)
        reverse = edits[-1].with_suffix(".undo")
        save(reverse, {"experts": arrays["experts"], "rows": arrays["before"]}, {}, overwrite=True)
        stored.replace(made["question"], made["before"], reverse)
        for path in (edits[-1], reverse):
            path.unlink()
        return Changed(made["question"], made["after"], made["before"], True, float("nan"), (), len(stored.facts), True)


class _Stored:
    """A memory opened for a change: its facts, all their tokens, and who reads which row."""

    def __init__(self, folder: Folder):
        header = folder.read_header()
        if not header.get("complete"):
            raise Refusal(f"{folder.path}: is not complete; run the `mome memorize` that began it again")
        self.folder, self.header = folder, header
        self.settings: Settings = folder.settings()
        self.identity = Identity.parse(self.settings.normalize) if self.settings.normalize else Identity()
        self.facts = read_facts(folder.facts)
        self.model: ByteBackbone = load_backbone(folder)
        self.index = Index.read(folder)
        self.addressing = Addressing.of(self.settings, self.index.queries.width)

    def change(self, question: str, before: str | None, answer: str | None) -> Changed:
        """Plan the edit, write it if it harms nobody, and say what moved."""
        due = self._due(self.facts, self.index.stored())
        rows = FactRows(due.facts, due.selection)
        number = self.facts.questions.index(question) if before is not None else len(self.facts)
        with DiskBank.open(self.folder.bank) as disk:
            bank = _Planned(disk)
            if before is not None:
                editing.apply(editing.delete(bank, rows, number, **self._protection(rows, due, number)), bank, rows)
            worst = float("nan")
            if answer is not None:
                own = self._own(question, answer, number)
                rows.insert(number, own.selection)
                protection = self._protection(rows, own, number)
                rows.delete(number)
                targets = self._targets(question, answer, own)
                editing.apply(editing.insert(bank, rows, number, own.selection, targets, **protection), bank, rows)
                worst = float(self._losses(bank, self._one(question, answer), own).max())
            moved = self._moved(bank, due, rows.readers(bank.experts_changed), number)
            threshold = self.settings.threshold_nats
            done = all(loss < threshold for _, _, loss in moved) and not worst >= threshold
            record = self._record(bank, question, before, answer) if done else None
        if record is not None:
            self.replace(question, answer, record)
        return Changed(question, before, answer, done, worst, tuple(moved), len(self.facts))

    def replace(self, question: str, answer: str | None, record: Any) -> None:
        """Write the rows of a record, the table of facts and the index that go with this answer."""
        rows = [Row(q, a, 0) for q, a in zip(self.facts.questions, self.facts.answers, strict=True) if q != question]
        if answer is not None:
            rows.append(Row(question, answer, 0))
        if not rows:
            raise Refusal(f"{self.folder.path}: the last fact cannot be deleted; delete the folder")
        facts = facts_from_rows(rows)
        kept = self.index.queries if self.settings.addresses in ("mixed", "learned") else None
        index = Index.of(facts.questions, self.settings, kept)
        folder = self.folder
        write_table(folder.next(folder.facts), facts, range(len(facts)))
        index.write(folder.next(folder.index))
        self.header |= {
            "facts": facts.fingerprint,
            "filter_bits_per_fact": 8 * index.filter.bytes / len(facts),
            "false_acceptance_rate": index.filter.false_acceptance_rate,
        }
        folder.states.unlink(missing_ok=True)  # the facts have another order; states are computed when they are needed
        folder.replace(self.header, (folder.facts, folder.index), record)

    def _record(self, bank: "_Planned", question: str, before: str | None, after: str | None) -> Any:
        self.folder.edits.mkdir(exist_ok=True)
        last = max((int(path.stem) for path in self.folder.edits.glob("*.safetensors")), default=0)
        path = self.folder.edits / f"{last + 1:06d}.safetensors"
        experts = bank.experts_changed
        arrays = {"experts": experts, "rows": bank.read_rows(experts), "before": bank.original(experts)}
        save(path, arrays, {"question": question, "before": before, "after": after}, overwrite=True)
        return path

    def _one(self, question: str, answer: str) -> Facts:
        return facts_from_rows([Row(question, answer, 1)], source="this edit")

    def _own(self, question: str, answer: str, number: int) -> Due:
        """The tokens of the fact that is edited."""
        vector = self.index.queries([question])
        identity = Index.of([question], self.settings, self.index.queries).identities
        yes = np.ones(1, bool)
        due = self._due(self._one(question, answer), Asked(identity, vector, yes, yes))  # pyright: ignore[reportArgumentType]
        return Due(np.full_like(due.facts, number), due.targets, due.selection)

    def _due(self, facts: Facts, asked: Asked) -> Due:
        return tokens_due(read_tokens(facts), asked, self.addressing, self.settings.chosen, self.settings.seed)

    def _protection(self, rows: FactRows, due: Due, number: int) -> dict[str, Any]:
        """The other facts that read the rows of this one; their rows may change as well."""
        experts = np.unique(np.asarray(due.selection.experts)[due.facts == number])
        return {"protected": [fact for fact in rows.readers(experts) if fact != number], "spread": True}

    def _targets(self, question: str, answer: str, due: Due) -> Float64[np.ndarray, "t v"]:
        states = self._states(self._one(question, answer))
        aim = jnp.float32(MARGIN * self.settings.threshold_nats / 6)
        shifts = [
            wanted_shift(jnp.asarray(state), jnp.int32(target), lambda one: unembed(self.model, one), aim)
            for state, target in zip(states, due.targets, strict=True)
        ]
        return np.stack([np.asarray(shift, np.float64) for shift in shifts])

    def _moved(self, bank: "_Planned", due: Due, readers: Sequence[int], number: int) -> list[tuple[str, float, float]]:
        """(question, distance, worst loss) of each other fact that reads a changed row, the farthest first."""
        found = []
        others = [fact for fact in readers if fact != number]
        if not others:
            return []
        some = [Row(self.facts.questions[fact], self.facts.answers[fact], fact) for fact in others]
        states = self._states(facts_from_rows(some, conflicts="keep"))
        begin = 0
        for fact in others:
            mine = np.flatnonzero(due.facts == fact)
            part = Due(due.facts[mine], due.targets[mine], Selection(*(half[mine] for half in due.selection)))  # type: ignore[arg-type]
            change = bank.output(part) - bank.output(part, original=True)
            losses = self._losses_at(states[begin : begin + len(mine)] + bank.output(part), part)
            begin += len(mine)
            found.append((self.facts.questions[fact], float(np.linalg.norm(change, axis=1).max()), float(losses.max())))
        return sorted(found, key=lambda one: -one[1])

    def _losses(self, bank: "_Planned", facts: Facts, due: Due) -> Float64[np.ndarray, " t"]:
        return self._losses_at(self._states(facts) + bank.output(due), due)

    def _losses_at(self, states: Any, due: Due) -> Float64[np.ndarray, " t"]:
        logits = np.asarray(
            jax.vmap(lambda one: unembed(self.model, one))(jnp.asarray(states, jnp.float32)), np.float64
        )
        largest = logits.max(axis=1, keepdims=True)
        total = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
        return total - logits[np.arange(len(logits)), due.targets]

    def _states(self, facts: Facts) -> Float32[np.ndarray, "t v"]:
        tokens = read_tokens(facts)
        if tokens.tokens.shape[1] > self.model.context:
            raise Refusal(
                f"question and answer have {tokens.tokens.shape[1]} tokens and the backbone reads "
                f"{self.model.context}; shorten them"
            )
        return hidden_states(self.model, tokens.tokens, tokens.answer_mask)


class _Planned:
    """A bank on disk with changes that are not written yet."""

    def __init__(self, disk: DiskBank):
        self.disk, self._rows = disk, {}

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.disk.experts

    @property
    def experts_changed(self) -> np.ndarray:
        """The rows that differ, ascending."""
        return np.array(sorted(self._rows), np.int64)

    def original(self, experts: np.ndarray) -> np.ndarray:
        """The rows as they are on disk."""
        return self.disk.read_rows(experts)

    def read_rows(self, experts: np.ndarray) -> np.ndarray:
        """The rows with the changes."""
        rows = np.array(self.disk.read_rows(experts))
        for place, expert in enumerate(np.asarray(experts).reshape(-1).tolist()):
            if expert in self._rows:
                rows.reshape(-1, rows.shape[-1])[place] = self._rows[expert]
        return rows

    def write_rows(self, experts: np.ndarray, rows: np.ndarray) -> None:
        """Remember the rows."""
        self._rows |= dict(zip(np.asarray(experts).tolist(), np.array(rows), strict=True))

    def output(self, due: Due, *, original: bool = False) -> np.ndarray:
        """What the tokens read, float64 [t v]."""
        read = self.original if original else self.read_rows
        rows = read(np.asarray(due.selection.experts)).astype(np.float64)
        return np.einsum("tk,tkv->tv", np.asarray(due.selection.weights, np.float64), rows)

"""One fact inserted, changed or deleted; which other facts move, and how far; taken back to the same bits.

An edit is a least-norm change of a few rows of the bank on disk that leaves alone what other facts read. First only the
fact's own rows may change: then no other fact moves. Where that misses (every second time at a load of 0.2), the rows
of the facts that share one with it change as well, and who reads those moves. (Not to protect anybody needs fewer
rows, but was seen to move neighbors twice as far and to use up most of their margin.) In a full bank that is not enough
either: then the passes of memorizing repair whom the edit unsettled. Losses are computed anew for whoever reads a row
that changes; an edit that would leave a fact above its threshold is not made.

Letters: t tokens of a fact, k experts chosen, v width of a state.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float32, Float64

from mome_jax import editing
from mome_jax.cross_entropy import memorize, wanted_shift
from mome_jax.disk import DiskBank
from mome_jax.fact_rows import FactRows
from mome_jax.index import Selection
from mome_jax.saving import load, save
from sims.fact_files import check_text
from sims.fact_report import Facts, Row, facts_from_rows
from sims.memory.addressing import Addressing, Asked
from sims.memory.backbone import hidden_states
from sims.memory.capped import beyond_reach, reachable_aim_nats
from sims.memory.changed_bank import ChangedBank
from sims.memory.due import Due, tokens_due
from sims.memory.files import refusals, writing
from sims.memory.folder import Folder
from sims.memory.identity import Identity
from sims.memory.known import Index, fingerprints_of
from sims.memory.memorizing import AIM, MARGIN, check_context, read_tokens, unembed
from sims.memory.model import model_of, place_of
from sims.memory.saved import bank_mark, bank_values, check_arrays, marks_of, open_bank, stored_facts, write_table
from sims.tokens import TokenizedFacts
from theory.console import Refusal

_NAMED = 10
_FORGOTTEN = 1e-3  # share of an output below which it counts as gone: what rounding leaves
_LENGTH = 64  # tokens are padded to a multiple of this: few lengths are few compilations
_MOST_LOGITS = 1 << 24  # that are computed together, or those of `_LENGTH` tokens


@dataclass(frozen=True)
class Moved:
    """Another fact that reads a row which changed."""

    question: str
    distance: float  # that its output moved, at the token that moved farthest
    worst_token_nats: float  # afterwards


@dataclass(frozen=True)
class Changed:
    """What an edit did, or would have done."""

    question: str
    before: str | None  # the stored answer; None where there was none
    after: str | None
    done: bool
    worst_token_nats: float | None = None  # of the fact after the edit; None where it was deleted
    left: float = 0.0  # of the output of the old answer, as a share: 0 where the bank has forgotten it
    rows: int = 0  # of the bank that changed
    others: int = 0  # facts beside this one
    moved: tuple[Moved, ...] = ()  # of these, the farthest first
    undone: bool = False

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"moved": [asdict(one) for one in self.moved]}

    def lines(self) -> list[str]:
        """The report for people."""
        what = (
            "taken back"
            if self.undone
            else "done"
            if self.done
            else "NOT done: this or another fact would not be stored"
        )
        lines = [f"{self.question!r}: {self.before!r} -> {self.after!r}, {what}"]
        if not self.done:
            lines.append(
                "the bank is too full for it: memorize the facts with that change in a new folder, with more --experts"
            )
        if self.undone:
            return [*lines, f"{self.rows} rows of the bank have the bits they had before the edit"]
        if self.worst_token_nats is not None:
            lines.append(f"its worst token has {self.worst_token_nats:.3f} nats")
        if self.left > _FORGOTTEN:
            lines.append(f"{self.left:.1%} of what the bank held of the old answer could not be removed")
        if not self.moved:
            return [*lines, f"{self.rows} rows changed; none of the {self.others:,} other facts reads one of them"]
        worst = max(self.moved, key=lambda one: one.worst_token_nats)
        lines.append(
            f"{self.rows} rows changed; {len(self.moved)} of {self.others:,} other facts read one of them, the others "
            f"are the same bits; the farthest moved by {self.moved[0].distance:.2g}, and the worst token of theirs has "
            f"{worst.worst_token_nats:.3f} nats ({worst.question!r})"
        )
        return lines + [f"  {one.question!r} moved by {one.distance:.2g}" for one in self.moved[:_NAMED]]


def change_fact(folder: Folder, question: str, answer: str | None) -> Changed:
    """Store this answer to a question, new or known; or forget the question if the answer is None.

    Raises Refusal if there is nothing to do, or for a question or answer that cannot be stored.
    """
    with folder.only_writer() as header:
        question = Identity.parse(folder.settings().normalize)(question)
        check_text("the question", question)
        if answer is not None:
            check_text("the answer", answer)
        stored = _Stored(folder, header)
        before = stored.answers.get(question)
        if before == answer:
            what = "is not stored" if answer is None else "has that answer already"
            raise Refusal(f"{folder.path}: {question!r} {what}; nothing was changed")
        if answer is None and len(stored.facts) == 1:
            raise Refusal(f"{folder.path}: the last fact cannot be deleted; delete the folder")
        with refusals():
            return stored.change(question, before, answer)


def undo_last(folder: Folder) -> Changed:
    """Take back the last edit: bank, facts and index have the same bits as before it."""
    with folder.only_writer() as header, refusals():
        count = header["edits"]
        if not count:
            raise Refusal(f"{folder.path}: no edit is left to take back")
        stored, record = _Stored(folder, header), _record_of(folder, count)
        arrays, made = load(record)
        with open_bank(folder) as bank:
            if bank.read_rows(arrays["experts"]).tobytes() != arrays["rows"].tobytes():
                raise Refusal(f"{record}: its rows were written since; restore the folder from a copy")
        reverse = record.with_suffix(".undo")
        save(reverse, {"experts": arrays["experts"], "rows": arrays["before"]}, {}, overwrite=True)
        stored.replace(made["place"], made["question"], made["after"], made["before"], reverse, count - 1)
        for path in (record, reverse):
            path.unlink()
        rows = len(arrays["experts"])
        return Changed(made["question"], made["after"], made["before"], True, rows=rows, undone=True)


class _Stored:
    """A memory opened for a change."""

    def __init__(self, folder: Folder, header: dict[str, Any]):
        check_arrays(folder, header)
        model = model_of(folder)
        self.folder, self.header, self.settings = folder, header | place_of(model), folder.settings()
        self.facts = stored_facts(folder, header)
        self.answers = dict(zip(self.facts.questions, self.facts.answers, strict=True))
        self.model, self.vocabulary = model.backbone, model.vocabulary
        self.index = Index.read(folder)
        self.addressing = Addressing.of(self.settings, self.index.queries.width)

    def change(self, question: str, before: str | None, answer: str | None) -> Changed:
        """Plan the edit, make it if it harms nobody, and say what moved."""
        place = len(self.facts) if before is None else self.facts.questions.index(question)
        new = None if answer is None else self._new(question, answer, place)
        due = self._due(self.facts, self.index.stored())
        with open_bank(self.folder) as disk:
            plan = self._planned(disk, due, new, place, before is not None, spread=False)
            if not plan.is_harmless or plan.left > _FORGOTTEN:
                wider = self._planned(disk, due, new, place, before is not None, spread=True)
                plan = wider if wider.is_harmless or not plan.is_harmless else plan
            if not plan.is_harmless:
                plan = self._repaired(plan, due, new, place)
            if not plan.is_harmless and new is not None:
                self._refuse_beyond_reach(new, answer)
            count = self.header["edits"] + 1
            others = len(self.facts) - (before is not None)
            rows = len(plan.bank.changed)
            changed = Changed(
                question, before, answer, plan.is_harmless, plan.worst, plan.left, rows, others, plan.moved
            )
            record = self._record(plan.bank, changed, place, count) if changed.done else None
        if record is not None:
            self.replace(place, question, before, answer, record, count)
        return changed

    def replace(
        self, place: int, question: str, before: str | None, after: str | None, record: Path, edits: int
    ) -> None:
        """Write the rows of a record, and the table of facts and the index in which this answer took a place."""
        rows = [Row(*row) for row in zip(self.facts.questions, self.facts.answers, self.facts.lines, strict=True)]
        rows[place : place + (before is not None)] = [] if after is None else [Row(question, after, 0)]
        facts, folder = facts_from_rows(rows), self.folder
        index = self.index
        if before is None or after is None:
            had, has = (None if text is None else question for text in (before, after))
            index = index.with_change(place, had, has, self.settings)
        write_table(folder.next(folder.facts), facts, range(len(facts)))
        index.write(folder.next(folder.index))
        with open_bank(folder) as bank:
            arrays, _ = load(record)
            written = bank_mark(bank, bank.checksum_with(arrays["experts"], arrays["rows"]))
        marks = self.header["marks"] | marks_of(folder.next(folder.facts), folder.next(folder.index))
        header = self.header | {
            "marks": marks | {folder.bank.name: written},
            "facts": facts.fingerprint,
            "filter_bits_per_fact": 8 * index.filter.bytes / len(facts),
            "false_acceptance_rate": index.filter.false_acceptance_rate,
            "longest_answer": int(self._tokens(facts).answer_lengths.max()),
            "edits": edits,
        }
        folder.replace(header, (folder.facts, folder.index, folder.states), record)

    def _planned(
        self, disk: DiskBank, due: Due, new: "_New | None", place: int, was_stored: bool, *, spread: bool
    ) -> "_Plan":
        """Forget the old fact, store the new one, and see who moves."""
        bank, rows, left = ChangedBank(disk), FactRows(due.facts, due.selection), 0.0
        if was_stored:
            old = due.of([place])
            beside = self._beside(rows, old.selection, place, spread)
            deletion = editing.delete(bank, rows, place, **beside)
            left = deletion.missed / max(1e-12, float(np.linalg.norm(bank.output(old), axis=1).max()))
            editing.apply(deletion, bank, rows)
        if new is not None:
            selection = new.due.selection
            beside = self._beside(rows, selection, place, spread)
            editing.apply(editing.insert(bank, rows, place, selection, new.targets, **beside), bank, rows)
        return self._judged(bank, due, rows, new, place, left)

    def _judged(
        self, bank: "ChangedBank", due: Due, rows: FactRows, new: "_New | None", place: int, left: float
    ) -> "_Plan":
        """The plan with everybody who moves and the losses afterwards."""
        moved = self._moved(bank, due, [fact for fact in rows.readers(bank.changed) if fact != place])
        worst = None if new is None else float(self._losses(bank, new.states, new.due).max())
        losses = [one.worst_token_nats for one in moved] + ([] if worst is None else [worst])
        return _Plan(bank, worst, left, moved, all(loss < self.settings.threshold_nats for loss in losses))

    def _repaired(self, plan: "_Plan", due: Due, new: "_New | None", place: int) -> "_Plan":
        """The plan, and after it passes of memorizing over all facts, until each is stored or no pass helps."""
        others = due.of([fact for fact in range(len(self.facts)) if fact != place])
        tokens = self._tokens(self.facts)
        kept = np.repeat(np.arange(len(self.facts)) != place, tokens.answer_lengths)
        states = hidden_states(self.model, tokens.tokens, tokens.answer_mask)[kept]
        parts = [others] if new is None else [others, new.due]
        stored = np.asarray(bank_values(self.folder))
        values = stored.copy()
        values[plan.bank.changed] = plan.bank.read_rows(plan.bank.changed)
        reached = memorize(
            jnp.asarray(values),
            states if new is None else np.concatenate([states, new.states]),
            np.concatenate([part.targets for part in parts]),
            Selection(*(jnp.concatenate(halves) for halves in zip(*(part.selection for part in parts), strict=True))),
            Partial(unembed, self.model),
            threshold_nats=self._goal_nats,
            aim_nats=self._aim_nats,
        )
        written = np.asarray(reached.values)
        differ = np.flatnonzero((written.view(np.uint32) != stored.view(np.uint32)).any(axis=1))
        plan.bank.write_rows(differ, written[differ])
        return self._judged(plan.bank, due, FactRows(others.facts, others.selection), new, place, plan.left)

    def _beside(self, rows: FactRows, selection: Selection, place: int, spread: bool) -> dict[str, Any]:
        readers = rows.readers(np.unique(np.asarray(selection.experts)))
        return {"protected": [fact for fact in readers if fact != place], "spread": spread}

    def _record(self, bank: "ChangedBank", changed: Changed, place: int, count: int) -> Path:
        """The file from which the edit is completed or taken back."""
        with writing(self.folder.edits):
            self.folder.edits.mkdir(exist_ok=True)
        experts, path = bank.changed, _record_of(self.folder, count)
        arrays = {"experts": experts, "rows": bank.read_rows(experts), "before": bank.disk.read_rows(experts)}
        names = ("question", "before", "after")
        save(path, arrays, {name: getattr(changed, name) for name in names} | {"place": place}, overwrite=True)
        return path

    def _new(self, question: str, answer: str, place: int) -> "_New":
        """The fact that is to be stored: its tokens, their states, and the outputs that they need."""
        fact = facts_from_rows([Row(question, answer, 1)], source="this edit")
        yes = np.ones(1, bool)
        identity = fingerprints_of([question], self.settings.seed)
        due = self._due(fact, Asked(identity, self.index.queries([question]), yes, yes))  # pyright: ignore[reportArgumentType]
        states = self._states(fact)
        inputs = _padded(states), _padded(due.targets), Partial(unembed, self.model), jnp.float32(self._aim_nats)
        shifts = _shifts(*inputs)
        targets = np.asarray(shifts, np.float64)[: len(due)]
        return _New(Due(np.full_like(due.facts, place), due.targets, due.selection), states, targets)

    def _refuse_beyond_reach(self, new: "_New", answer: str | None) -> None:
        """Raise Refusal if it is a cap that keeps the fact out, and not the bank."""
        threshold = self.settings.threshold_nats
        beyond = beyond_reach(self.model, new.states, new.due.targets, threshold, self._aim_nats)
        if beyond.tokens:
            raise Refusal(f"{self.folder.path}: {answer!r} cannot be stored; it takes {beyond.remedy}")

    @property
    def _goal_nats(self) -> float:
        return MARGIN * self.settings.threshold_nats

    @property
    def _aim_nats(self) -> float:
        return reachable_aim_nats(AIM * self._goal_nats, self._goal_nats, self.model)

    def _due(self, facts: Facts, asked: Asked) -> Due:
        return tokens_due(self._tokens(facts), asked, self.addressing, self.settings.chosen, self.settings.seed)

    def _moved(self, bank: "ChangedBank", due: Due, readers: Sequence[int]) -> tuple[Moved, ...]:
        """How far these facts move, the farthest first."""
        if not readers:
            return ()
        some = [Row(self.facts.questions[fact], self.facts.answers[fact], 1) for fact in readers]
        part = due.of(readers)
        distances = np.linalg.norm(bank.output(part) - bank.output(part, original=True), axis=1)
        losses = self._losses(bank, self._states(facts_from_rows(some)), part)
        found = []
        for fact in readers:
            mine = part.facts == fact
            found.append(Moved(self.facts.questions[fact], float(distances[mine].max()), float(losses[mine].max())))
        return tuple(sorted(found, key=lambda one: -one.distance))

    def _losses(self, bank: "ChangedBank", states: Float32[np.ndarray, "t v"], due: Due) -> Float64[np.ndarray, " t"]:
        inputs = (states + bank.output(due)).astype(np.float32)
        losses = np.empty(len(due))
        size = _LENGTH * max(1, _MOST_LOGITS // (_LENGTH * self.model.vocabulary))
        for start in range(0, len(due), size):
            some = slice(start, min(len(due), start + size))
            padded = _logits(_padded(inputs[some]), Partial(unembed, self.model))
            logits = np.asarray(padded, np.float64)[: some.stop - start]
            largest = logits.max(axis=1, keepdims=True)
            total = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
            losses[some] = total - logits[np.arange(len(logits)), due.targets[some]]
        return losses

    def _tokens(self, facts: Facts) -> TokenizedFacts:
        return read_tokens(facts, self.vocabulary)

    def _states(self, facts: Facts) -> Float32[np.ndarray, "t v"]:
        tokens = self._tokens(facts)
        check_context(self.model, tokens, facts)
        return hidden_states(self.model, tokens.tokens, tokens.answer_mask)


class _New(NamedTuple):
    """A fact that is to be stored."""

    due: Due
    states: Float32[np.ndarray, "t v"]
    targets: Float64[np.ndarray, "t v"]


class _Plan(NamedTuple):
    """An edit that is not written yet."""

    bank: "ChangedBank"
    worst: float | None  # nats of a token of the new answer
    left: float
    moved: tuple[Moved, ...]
    is_harmless: bool


def _record_of(folder: Folder, number: int) -> Path:
    return folder.edits / f"{number:06d}.safetensors"


def _padded(rows: np.ndarray) -> jax.Array:
    """Rows, and zeros up to a multiple of `_LENGTH`."""
    empty = -len(rows) % _LENGTH
    return jnp.asarray(np.pad(rows, ((0, empty), *((0, 0),) * (rows.ndim - 1))))


@jax.jit
def _shifts(states: jax.Array, targets: jax.Array, unembed: Partial, aim_nats: jax.Array) -> jax.Array:
    return jax.vmap(wanted_shift, (0, 0, None, None))(states, targets, unembed, aim_nats)


@jax.jit
def _logits(states: jax.Array, unembed: Partial) -> jax.Array:
    return jax.vmap(unembed)(states)

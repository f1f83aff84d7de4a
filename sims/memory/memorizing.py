"""From facts to a memory on disk: backbone, states, addresses, writing passes, files; taken up again where it stopped.

What is finished is a file, written whole or not at all, and is not done again: the number of pretraining steps, the
backbone, the states, the values after a pass. So a killed run loses the work in flight, and the bits come out the same.
"""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float32, Float64

from mome_jax.cross_entropy import Memorized, memorizing
from mome_jax.descent import gradient_steps
from mome_jax.disk import DiskBank
from mome_jax.experts import Values
from mome_jax.optimizers import Adam
from mome_jax.report import after_writing
from mome_jax.saving import load, save
from sims.fact_files import write_facts
from sims.fact_report import Facts
from sims.memory.addressing import Addressing
from sims.memory.backbone import ByteBackbone, hidden_states
from sims.memory.due import Due, tokens_due
from sims.memory.folder import Folder, Settings, plain
from sims.memory.identity import write_conflicts
from sims.memory.known import Index
from sims.memory.pretraining import pretrain, steps_within
from sims.progress import Progress
from sims.tokens import TokenizedFacts, tokenize
from theory.console import Refusal

LONGEST = 1024  # tokens of question and answer together
CONTEXT = 256  # of a backbone, unless a fact is longer
MARGIN = 0.9  # of the threshold, below which tokens are brought, so that rounding moves none above it
GRADIENT = Adam(0.03), 300  # optimizer and most steps a chunk, where writing goes by gradient steps
_SAVING_SHARE = 0.2  # of the time of writing, for what a killed run would need


@dataclass(frozen=True, eq=False)
class Outcome:
    """What memorizing came to; fact by fact in the order of the facts."""

    facts: Facts
    stored: Bool[np.ndarray, " n"]  # every token under the threshold
    due: Due
    token_losses_nats: Float64[np.ndarray, " s"]
    header: dict[str, Any]


def read_tokens(facts: Facts) -> TokenizedFacts:
    """The facts as bytes; raises Refusal for facts that are too long."""
    return tokenize(facts.questions, facts.answers, "bytes", longest=LONGEST, lines=facts.lines)


def default_experts(answer_tokens: int) -> int:
    """The smallest power of two that is at least four times the tokens of all answers.

    >>> default_experts(302_220)
    2097152
    """
    return 1 << (4 * max(1, answer_tokens) - 1).bit_length()


def memorize(
    facts: Facts,
    folder: Folder,
    settings: Settings,
    *,
    backbone_from: Folder | None = None,
    pretrain_seconds: float = 45.0,
    most_passes: int = 50,
    quiet: bool = False,
) -> Outcome:
    """Store the facts in the folder, or go on with what was begun there with the same facts and settings.

    `facts` have no conflicts and normalized questions. Raises Refusal if the folder holds something else.
    """
    identity = {"settings": plain(settings), "facts": facts.fingerprint}
    with folder.only_writer():
        header = _begun(folder, identity)
        if facts.report.conflicts and not folder.conflicts.exists():
            write_conflicts(folder.conflicts, facts.report.conflicts)
        work = Work(facts, folder, settings, header, quiet)
        work.backbone(backbone_from, pretrain_seconds)
        index = Index.of(facts.questions, settings)
        if header["complete"]:  # nothing to write: what is stored is measured again
            return work.write(index, work.states(), 0, (bank_values(folder), None, header["passes"]))
        outcome = work.write(index, work.states(), most_passes)
        work.finish(outcome, index)
        return replace(outcome, header=work.header)


class Work:
    """The stages, each of which leaves a file and a line in the header."""

    def __init__(self, facts: Facts, folder: Folder, settings: Settings, header: dict[str, Any], quiet: bool):
        self.facts, self.folder, self.settings, self.header, self.quiet = facts, folder, settings, header, quiet
        self.tokens = read_tokens(facts)
        self.model: ByteBackbone

    def backbone(self, source: Folder | None, seconds: float) -> None:
        """Load the backbone, take it from another memory, or pretrain one."""
        if source is not None and not self.folder.backbone.exists():
            shutil.copyfile(source.backbone, self.folder.backbone.with_suffix(".copy"))
            self.folder.backbone.with_suffix(".copy").replace(self.folder.backbone)
        if not self.folder.backbone.exists():
            self._pretrain(seconds)
        self.model = load_backbone(self.folder)
        if self.tokens.tokens.shape[1] > self.model.context:
            raise Refusal(
                f"{self.facts.report.source}: the longest fact has {self.tokens.tokens.shape[1]} tokens and the "
                f"backbone reads {self.model.context}; pretrain one on this file"
            )

    def write(
        self,
        index: Index,
        states: Float32[np.ndarray, "s v"],
        most_passes: int,
        begin: tuple[jax.Array, np.ndarray | None, int] | None = None,
    ) -> Outcome:
        """Bring every token under the threshold, pass by pass, beginning with values, losses and passes if given."""
        with self.timed("addresses"), self.progress("choosing experts", int(self.tokens.answer_mask.sum())) as shown:
            addressing = Addressing.of(self.settings, index.queries.width)
            due = tokens_due(
                self.tokens, index.stored(), addressing, self.settings.chosen, self.settings.seed, shown.advance
            )
        values, losses, passes = begin or self._resumed()
        state: Memorized | None = None
        with self.timed("writing"), self.progress("writing", len(due)) as shown:
            for state in memorizing(
                values,
                states,
                due.targets,
                due.selection,
                Partial(unembed, self.model),
                threshold_nats=MARGIN * self.settings.threshold_nats,
                aim_nats=MARGIN * self.settings.threshold_nats / 6,
                most_passes=max(0, most_passes - passes),
                losses_nats=losses,
                write=gradient_steps(*GRADIENT) if self.settings.procedure == "gradient" else None,
            ):
                self._after_pass(state, passes, shown)
        assert state is not None  # there is one before the first pass
        self.values = state.values
        self.header["passes"] = passes + state.passes
        stored = after_writing(state.losses_nats, self.settings.threshold_nats, facts=due.facts).stored
        return Outcome(self.facts, stored, due, state.losses_nats, self.header)

    def states(self) -> Float32[np.ndarray, "s v"]:
        """The states where a token is due, from the file or computed."""
        if not self.folder.states.exists():
            with self.timed("states"), self.progress("reading the facts", len(self.facts)) as shown:
                states = hidden_states(self.model, self.tokens.tokens, self.tokens.answer_mask, advance=shown.advance)
            unfinished = self.folder.states.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                np.save(file, states)
            unfinished.replace(self.folder.states)
        return read_states(self.folder, int(self.tokens.answer_mask.sum()), self.model.width)

    def finish(self, outcome: Outcome, index: Index) -> None:
        """Write what a reader needs; all of it takes its place together."""
        folder, rows = self.folder, np.flatnonzero(outcome.stored)
        with self.timed("saving"):
            folder.next(folder.bank).unlink(missing_ok=True)
            DiskBank.store(folder.next(folder.bank), self.values, {"experts": self.settings.experts}).close()
        if len(rows) < len(self.facts):
            index = Index.of([self.facts.questions[row] for row in rows], self.settings, index.queries)
        index.write(folder.next(folder.index))
        write_table(folder.next(folder.facts), self.facts, rows)
        write_table(folder.next(folder.not_stored), self.facts, np.flatnonzero(~outcome.stored))
        self.header |= {
            "complete": True,
            "filter_bits_per_fact": 8 * index.filter.bytes / max(1, len(rows)),
            "false_acceptance_rate": index.filter.false_acceptance_rate,
        }
        files = (folder.bank, folder.index, folder.facts, folder.not_stored, folder.states)
        folder.replace(self.header, files)
        shutil.rmtree(folder.work, ignore_errors=True)

    def _pretrain(self, seconds: float) -> None:
        sizes = {"context": max(CONTEXT, self.tokens.tokens.shape[1])}
        with self.timed("pretraining"):
            if "pretraining_steps" not in self.header:
                self.header["pretraining_steps"] = steps_within(self.tokens, seconds, seed=self.settings.seed, **sizes)
                self.folder.write_header(self.header)
            steps = self.header["pretraining_steps"]
            with self.progress("pretraining the backbone", steps) as shown:
                trained = pretrain(self.tokens, steps, seed=self.settings.seed, advance=shown.advance, **sizes)
        arrays, stated = trained.backbone.to_arrays()
        loss = trained.loss_nats if math.isfinite(trained.loss_nats) else None
        stated |= {
            "steps": steps,
            "steps_in_a_pass": trained.steps_in_a_pass,
            "tokens": trained.tokens,
            "loss_nats": loss,
        }
        save(self.folder.backbone, arrays, stated)

    def _resumed(self) -> tuple[jax.Array, np.ndarray | None, int]:
        """Values, losses and passes after the last pass that was saved, or an empty bank."""
        saved = self.folder.work / "pass.safetensors"
        if saved.exists():
            arrays, header = load(saved)
            return jnp.asarray(arrays["values"]), arrays["losses_nats"], header["passes"]
        return Values.create(self.settings.experts, self.model.width).values, None, 0

    def _after_pass(self, state: Memorized, before: int, shown: Progress) -> None:
        """Show it, and save it if that does not take more than its share of the time."""
        now = time.perf_counter()
        left = int(state.open.sum())
        shown.say(f"writing, pass {before + state.passes}: {left:,} of {len(state.losses_nats):,} tokens to store")
        if state.passes == 0:
            self._last_saved, self._saving = now, state.values.nbytes / 5e8
        elif left and now - self._last_saved > self._saving / _SAVING_SHARE * (1 - _SAVING_SHARE):
            self.folder.work.mkdir(exist_ok=True)
            arrays = {"values": state.values, "losses_nats": state.losses_nats}
            save(self.folder.work / "pass.safetensors", arrays, {"passes": before + state.passes}, overwrite=True)
            self._last_saved, self._saving = time.perf_counter(), time.perf_counter() - now

    def progress(self, text: str, total: float) -> Progress:
        """How far a stage is, unless all is quiet."""
        return Progress(text, max(total, 1), quiet=self.quiet)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add up the seconds of a stage in the header, over all runs that took part."""
        began = time.perf_counter()
        yield
        seconds = self.header.setdefault("seconds", {})
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began
        self.folder.write_header(self.header)


def load_backbone(folder: Folder) -> ByteBackbone:
    """The frozen model of a memory; raises Refusal if its file cannot be used."""
    try:
        arrays, header = load(folder.backbone)
    except ValueError as error:
        raise Refusal(str(error)) from None
    return ByteBackbone.from_arrays(arrays, header, str(folder.backbone))


def bank_values(folder: Folder) -> jax.Array:
    """The values of a memory's bank, in memory; raises Refusal if the file cannot be used."""
    try:
        return jnp.asarray(load(folder.bank)[0]["values"])
    except ValueError as error:
        raise Refusal(str(error)) from None


def read_states(folder: Folder, count: int, width: int) -> Float32[np.ndarray, "s v"]:
    """The states in the folder, mapped; raises Refusal if they are not those of its facts."""
    try:
        states = np.load(folder.states, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refusal(f"{folder.states}: cannot be read ({error}); delete it, it is computed again") from None
    if states.shape != (count, width) or states.dtype != np.float32:
        raise Refusal(f"{folder.states}: does not belong to these facts; delete it, it is computed again")
    return states


def unembed(model: ByteBackbone, state: jax.Array) -> jax.Array:
    """Logits of the next token; a function of a module, so that programs that use it are compiled once."""
    return model.unembed(state)


def _begun(folder: Folder, identity: dict[str, Any]) -> dict[str, Any]:
    """The header to go on with."""
    if not folder.exists():
        if folder.path.exists() and any(entry.name != ".lock" for entry in folder.path.iterdir()):
            raise Refusal(f"{folder.path}: is not empty and no memory; choose another folder")
        header = {**identity, "complete": False}
        folder.write_header(header)
        return header
    header = folder.settle()
    if any(header.get(name) != value for name, value in identity.items()):
        raise Refusal(
            f"{folder.path}: holds a memory of other facts or settings; choose another folder, `mome add` more facts, "
            "or start over with --fresh"
        )
    return header


def write_table(path: Path, facts: Facts, rows: Sequence[int] | np.ndarray) -> None:
    """Some of the facts as a file; none if there are none."""
    path.unlink(missing_ok=True)
    if len(rows):
        unfinished = path.with_name(path.name + ".csv")
        unfinished.unlink(missing_ok=True)
        write_facts(unfinished, [facts.questions[row] for row in rows], [facts.answers[row] for row in rows])
        unfinished.replace(path)

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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float32, Float64

from mome_jax.cross_entropy import Memorized, memorizing
from mome_jax.disk import DiskBank
from mome_jax.experts import Values
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
        work = _Work(facts, folder, settings, header, quiet)
        work.backbone(backbone_from, pretrain_seconds)
        index = Index.of(facts.questions, settings)
        outcome = work.write(index, most_passes)
        work.finish(outcome, index)
        return replace(outcome, header=work.header)


class _Work:
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

    def write(self, index: Index, most_passes: int) -> Outcome:
        """Bring every token under the threshold, pass by pass."""
        states = self.states()
        with self._timed("addresses"), self._progress("choosing experts", int(self.tokens.answer_mask.sum())) as shown:
            addressing = Addressing.of(self.settings, index.queries.width)
            due = tokens_due(
                self.tokens, index.stored(), addressing, self.settings.chosen, self.settings.seed, shown.advance
            )
        values, losses, passes = self._resumed()
        with self._timed("writing"), self._progress("writing", len(due)) as shown:
            for state in memorizing(
                values,
                states,
                due.targets,
                due.selection,
                Partial(_unembed, self.model),
                threshold_nats=MARGIN * self.settings.threshold_nats,
                aim_nats=MARGIN * self.settings.threshold_nats / 6,
                most_passes=most_passes - passes,
                losses_nats=losses,
            ):
                self._after_pass(state, passes, shown)
        self.values = state.values
        self.header["passes"] = passes + state.passes
        stored = after_writing(state.losses_nats, self.settings.threshold_nats, facts=due.facts).stored
        return Outcome(self.facts, stored, due, state.losses_nats, self.header)

    def states(self) -> Float32[np.ndarray, "s v"]:
        """The states where a token is due, from the file or computed."""
        if not self.folder.states.exists():
            with self._timed("states"), self._progress("reading the facts", len(self.facts)) as shown:
                states = hidden_states(self.model, self.tokens.tokens, self.tokens.answer_mask, advance=shown.advance)
            unfinished = self.folder.states.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                np.save(file, states)
            unfinished.replace(self.folder.states)
        return read_states(self.folder, int(self.tokens.answer_mask.sum()), self.model.width)

    def finish(self, outcome: Outcome, index: Index) -> None:
        """Write what a reader needs, and last the word that it is complete."""
        with self._timed("saving"):
            self.folder.bank.unlink(missing_ok=True)
            DiskBank.store(self.folder.bank, self.values, {"experts": self.settings.experts}).close()
            rows = np.flatnonzero(outcome.stored)
            index = (
                index
                if len(rows) == len(self.facts)
                else Index.of([self.facts.questions[row] for row in rows], self.settings, index.queries)
            )
            index.write(self.folder)
        _write_table(self.folder.facts, self.facts, rows)
        _write_table(self.folder.not_stored, self.facts, np.flatnonzero(~outcome.stored))
        if self.facts.report.conflicts and not self.folder.conflicts.exists():
            write_conflicts(self.folder.conflicts, self.facts.report.conflicts)
        self.header |= {"complete": True, "stored": len(rows), "tokens": len(outcome.due)}
        self.header["filter_bits_per_fact"] = 8 * index.filter.bytes / max(1, len(rows))
        self.header["false_acceptance_rate"] = index.filter.false_acceptance_rate
        self.folder.write_header(self.header)
        shutil.rmtree(self.folder.work, ignore_errors=True)

    def _pretrain(self, seconds: float) -> None:
        sizes = {"context": max(CONTEXT, self.tokens.tokens.shape[1])}
        with self._timed("pretraining"):
            if "pretraining_steps" not in self.header:
                self.header["pretraining_steps"] = steps_within(self.tokens, seconds, seed=self.settings.seed, **sizes)
                self.folder.write_header(self.header)
            steps = self.header["pretraining_steps"]
            with self._progress("pretraining the backbone", steps) as shown:
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

    def _progress(self, text: str, total: float) -> Progress:
        return Progress(text, max(total, 1), quiet=self.quiet)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
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


def read_states(folder: Folder, count: int, width: int) -> Float32[np.ndarray, "s v"]:
    """The states in the folder, mapped; raises Refusal if they are not those of its facts."""
    try:
        states = np.load(folder.states, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refusal(f"{folder.states}: cannot be read ({error}); delete it, it is computed again") from None
    if states.shape != (count, width) or states.dtype != np.float32:
        raise Refusal(f"{folder.states}: does not belong to these facts; delete it, it is computed again")
    return states


def _unembed(model: ByteBackbone, state: jax.Array) -> jax.Array:
    return model.unembed(state)


def _begun(folder: Folder, identity: dict[str, Any]) -> dict[str, Any]:
    """The header to go on with."""
    if not folder.exists():
        if folder.path.exists() and any(entry.name != ".lock" for entry in folder.path.iterdir()):
            raise Refusal(f"{folder.path}: is not empty and no memory; choose another folder")
        header = {**identity, "complete": False}
        folder.write_header(header)
        return header
    header = folder.read_header()
    if any(header.get(name) != value for name, value in identity.items()):
        raise Refusal(
            f"{folder.path}: holds a memory of other facts or settings; choose another folder, `mome add` more facts, "
            "or start over with --fresh"
        )
    return header


def _write_table(path: Any, facts: Facts, rows: Sequence[int] | np.ndarray) -> None:
    path.unlink(missing_ok=True)
    if len(rows):
        write_facts(path, [facts.questions[row] for row in rows], [facts.answers[row] for row in rows])

"""From facts to a memory on disk: backbone, states, addresses, writing passes, files; taken up again where it stopped.

What is finished is a file, written whole or not at all, and is not done again: the number of pretraining steps, the
backbone, the states, the values after a pass. So a killed run loses the work in flight, and the bits come out the same.
"""

import filecmp
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float32, Float64

from mome_jax.cross_entropy import Memorized, Write, memorizing
from mome_jax.descent import gradient_steps
from mome_jax.disk import DiskBank
from mome_jax.experts import Values
from mome_jax.optimizers import Adam
from mome_jax.report import after_writing
from mome_jax.saving import load, save
from sims.fact_report import Facts
from sims.memory.addressing import Addressing, learned_half
from sims.memory.backbone import Backbone, hidden_states
from sims.memory.capped import Beyond, beyond_reach, check_cap, reachable_aim_nats
from sims.memory.due import Due, tokens_due
from sims.memory.files import as_json, refusals, write_whole, writing
from sims.memory.folder import Folder, Settings, plain
from sims.memory.identity import write_conflicts
from sims.memory.known import Index
from sims.memory.model import Model, byte_model, identity_of, place_of
from sims.memory.pretraining import pretrain, steps_within
from sims.memory.report import outcome_report
from sims.memory.saved import check_marks, marks_of, read_states, write_states, write_table
from sims.progress import Progress
from sims.tokens import BYTES, TokenizedFacts, Vocabulary, tokenize
from theory.console import Refusal
from theory.experts import load_threshold

LONGEST = 1024  # tokens of question and answer together
CONTEXT = 256  # of a backbone, unless a fact is longer
MARGIN = 0.9  # of the threshold, below which tokens are brought, so that rounding moves none above it
AIM = 1 / 6  # of that, for each token that is written: what its neighbors disturb should not come above it at once
LEARNED_AIM_NATS, LEARNED_PASSES = 1e-5, 2  # of the learned half of mixed addresses, by itself
GRADIENT = Adam(0.03), 300  # optimizer and most steps a chunk, where writing goes by gradient steps
_SAVING_SHARE = 0.2  # of the time of writing, for what a killed run would need
_BYTES_PER_SECOND = 5e8  # of saving, until it was timed


@dataclass(frozen=True, eq=False)
class Outcome:
    """What writing came to; fact by fact in the order of the facts."""

    facts: Facts
    stored: Bool[np.ndarray, " n"]  # every token under the threshold
    due: Due
    token_losses_nats: Float64[np.ndarray, " s"]
    values: Float32[jax.Array, "M v"]
    beyond: Beyond


class Reached(NamedTuple):
    """From where writing goes on."""

    values: Float32[jax.Array, "M v"]
    losses_nats: Float64[np.ndarray, " s"] | None  # None: to be measured
    passes: int


def read_tokens(facts: Facts, vocabulary: Vocabulary = BYTES) -> TokenizedFacts:
    """The facts as tokens; raises Refusal for facts that are too long, or that the vocabulary cannot write."""
    read = {"lines": facts.lines, "source": facts.report.source}
    return tokenize(facts.questions, facts.answers, vocabulary, longest=LONGEST, **read)


def default_experts(answer_tokens: int) -> int:
    """The smallest power of two that is at least four times the tokens of all answers.

    >>> default_experts(302_220)
    2097152
    """
    return 1 << (4 * max(1, answer_tokens) - 1).bit_length()


def check_room(answer_tokens: int, settings: Settings) -> None:
    """Raise Refusal if so many tokens are more than the experts can store (T21)."""
    most = load_threshold(settings.chosen) * settings.experts
    if settings.chosen > 1 and answer_tokens > most:
        raise Refusal(
            f"{answer_tokens:,} answer tokens are more than {settings.experts:,} experts, {settings.chosen} a token, "
            f"can store ({most:,.0f}, T21); memorize the facts in a new folder with "
            f"--experts {default_experts(answer_tokens)}"
        )


def memorize(
    facts: Facts,
    folder: Folder,
    settings: Settings,
    *,
    model: Model | None = None,
    backbone_sizes: Mapping[str, int] | None = None,
    pretrain_seconds: float = 45.0,
    most_passes: int = 50,
    fresh: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Store the facts in the folder, or go on with what was begun there with the same facts and settings; the report.

    `facts` have no conflicts and normalized questions. Without a `model` a byte transformer is pretrained, of
    `backbone_sizes` as `ByteBackbone.fresh` has them. Raises Refusal, and changes nothing, if the facts cannot be
    stored so, or the folder holds something else.
    """
    identity = {"settings": plain(settings), "facts": facts.fingerprint, **identity_of(model)}
    tokens = read_tokens(facts, BYTES if model is None else model.vocabulary)
    check_room(int(tokens.answer_mask.sum()), settings)
    if model is not None:
        if fresh and model.path.resolve() == folder.backbone.resolve():
            raise Refusal(f"--backbone {folder.path}: would be deleted by --fresh; choose another folder")
        check_model(model, tokens, facts, settings)
    with folder.begun(identity, fresh=fresh) as header:
        if header["complete"]:
            check_marks(header, folder.report)
            report = folder.read_report()
            if not quiet:
                click.echo(f"{folder.path}: was complete already; this is what it came to", err=True)
            return report
        work = Work(facts, tokens, folder, settings, header, quiet)
        work.backbone(model, pretrain_seconds, backbone_sizes or {})
        index = Index.of(facts.questions, settings)
        return work.finish(work.write(index, work.states(), most_passes), index)


def check_model(model: Model, tokens: TokenizedFacts, facts: Facts, settings: Settings) -> None:
    """Raise Refusal if facts cannot be stored beside the model, whatever the memory is."""
    check_context(model.backbone, tokens, facts)
    check_cap(model.backbone, MARGIN * settings.threshold_nats, model.path)


def check_context(model: Backbone, tokens: TokenizedFacts, facts: Facts) -> None:
    """Raise Refusal if the backbone cannot read the facts."""
    longest = tokens.tokens.shape[1]
    if longest > model.context:
        raise Refusal(
            f"{facts.report.source}: the longest fact has {longest} tokens and the backbone reads {model.context}; "
            "shorten it, or memorize all facts in a new folder, beside a model that reads more or with one of its own"
        )


class Work:
    """The stages, each of which leaves a file and a line in the header.

    Where the header says that the memory is complete, it is being added to: then nothing is left before the end.
    """

    model: Backbone

    def __init__(
        self,
        facts: Facts,
        tokens: TokenizedFacts,
        folder: Folder,
        settings: Settings,
        header: dict[str, Any],
        quiet: bool,
    ):
        self.facts, self.tokens, self.folder, self.settings = facts, tokens, folder, settings
        self.header, self.quiet = header, quiet
        self.is_addition = header["complete"]

    def backbone(self, given: Model | None, seconds: float, sizes: Mapping[str, int]) -> None:
        """Take the checkpoint or the byte transformer that is given, load the folder's own, or pretrain one."""
        own = self.folder.backbone
        if given is not None and given.checkpoint is not None:
            self.use(given)
            return
        if given is not None:
            if not own.exists():
                copy = self.folder.next(own)
                with writing(own):
                    shutil.copyfile(given.path, copy)
                    copy.replace(own)
            elif not filecmp.cmp(given.path, own, shallow=False):
                raise Refusal(f"{own}: is not the backbone {given.path}; start over with --fresh")
        if not own.exists():
            self._pretrain(seconds, sizes)
        self.use(byte_model(self.folder))

    def use(self, model: Model) -> None:
        """Go on with this model, which must be able to read the facts."""
        check_context(model.backbone, self.tokens, self.facts)
        self.model = model.backbone
        self.header |= place_of(model)

    def write(
        self, index: Index, states: Float32[np.ndarray, "s v"], most_passes: int, begin: Reached | None = None
    ) -> Outcome:
        """Bring every token under the threshold, pass by pass, from `begin` or from where a killed run was."""
        settings = self.settings
        reached = begin or self._resumed()
        with self.timed("addresses"), self.progress("choosing experts", int(self.tokens.answer_mask.sum())) as shown:
            addressing = Addressing.of(settings, index.queries.width)
            due = tokens_due(self.tokens, index.stored(), addressing, settings.chosen, settings.seed, shown.advance)
        state: Memorized | None = None
        aim_nats = self._aim_nats(AIM * MARGIN * settings.threshold_nats)
        with self.timed("writing"), self.progress("writing", len(due)) as shown:
            values = reached.values
            if settings.addresses == "mixed" and reached.losses_nats is None:
                values = self._learned_first(values, states, due)
            for state in memorizing(
                values,
                states,
                due.targets,
                due.selection,
                Partial(unembed, self.model),
                threshold_nats=MARGIN * settings.threshold_nats,
                aim_nats=aim_nats,
                most_passes=max(0, most_passes - reached.passes),
                losses_nats=reached.losses_nats,
                write=self._way(),
            ):
                self._after_pass(state, reached.passes, shown)
        assert state is not None  # there is one before the first pass
        self.header["passes"] = reached.passes + state.passes
        stored = after_writing(state.losses_nats, settings.threshold_nats, facts=due.facts).stored
        left = np.flatnonzero(state.losses_nats >= settings.threshold_nats)
        beyond = beyond_reach(self.model, states[left], due.targets[left], settings.threshold_nats, aim_nats)
        return Outcome(self.facts, stored, due, state.losses_nats, state.values, beyond)

    def _aim_nats(self, wanted_nats: float) -> float:
        return reachable_aim_nats(wanted_nats, MARGIN * self.settings.threshold_nats, self.model)

    def _learned_first(self, values: Float32[jax.Array, "M v"], states: Float32[np.ndarray, "s v"], due: Due):
        """Write what can be through the learned half alone, which is all that a paraphrase reads, and with a margin.

        A paraphrase finds a part of the experts and reads a part of the shift.
        """
        aim_nats = self._aim_nats(LEARNED_AIM_NATS)
        *_, state = memorizing(
            values,
            states,
            due.targets,
            learned_half(due.selection),
            Partial(unembed, self.model),
            threshold_nats=2 * aim_nats,
            aim_nats=aim_nats,
            most_passes=LEARNED_PASSES,
            write=self._way(),
        )
        return state.values

    def _way(self) -> Write | None:
        """How a chunk is written; None: by projection."""
        return gradient_steps(*GRADIENT) if self.settings.procedure == "gradient" else None

    def states(self) -> Float32[np.ndarray, "s v"]:
        """The states where a token is due, from the file or computed."""
        if not self.folder.states.exists():
            write_states(self.folder.states, self.read(slice(None)))
        return read_states(self.folder, int(self.tokens.answer_mask.sum()), self.model.width)

    def read(self, which: slice) -> Float32[np.ndarray, "s v"]:
        """Let the backbone read some of the facts: its states where a token is due."""
        tokens, mask = self.tokens.tokens[which], self.tokens.answer_mask[which]
        with self.timed("states"), self.progress("reading the facts", len(tokens)) as shown:
            return hidden_states(self.model, tokens, mask, advance=shown.advance)

    def finish(self, outcome: Outcome, index: Index, others: Iterable[Path] = ()) -> dict[str, Any]:
        """Write what a reader needs; all of it takes its place together, and so do the successors of `others`.

        Returns the report. Raises Refusal if not one fact could be stored.
        """
        folder, rows = self.folder, np.flatnonzero(outcome.stored)
        if not rows.size:
            raise Refusal(
                f"{folder.path}: not one fact could be stored; start over with --fresh and {outcome.beyond.remedy}"
            )
        if len(rows) < len(self.facts):
            index = Index.of([self.facts.questions[row] for row in rows], self.settings, index.queries)
            others = [*others, folder.states]  # they have rows for facts that are not kept: computed when needed
            folder.next(folder.states).unlink(missing_ok=True)
        with self.timed("saving"), refusals():
            DiskBank.store(folder.next(folder.bank), outcome.values, {"experts": self.settings.experts}).close()
            index.write(folder.next(folder.index))
            write_table(folder.next(folder.facts), self.facts, rows)
            marks = marks_of(*self._belonging(states=len(rows) == len(self.facts)))
        write_table(folder.next(folder.not_stored), self.facts, np.flatnonzero(~outcome.stored))
        if not self.is_addition and self.facts.report.conflicts:
            write_conflicts(folder.next(folder.conflicts), self.facts.report.conflicts)
            others = [*others, folder.conflicts]
        self.header |= {
            "complete": True,
            "filter_bits_per_fact": 8 * index.filter.bytes / len(rows),
            "false_acceptance_rate": index.filter.false_acceptance_rate,
            "longest_answer": int(self.tokens.answer_lengths.max()),
            "edits": 0,  # that can be taken back: none from before this bank
        }
        report = outcome_report(outcome, self.header, self.settings, folder)
        write_whole(folder.next(folder.report), as_json(report))
        self.header["marks"] = marks | marks_of(folder.next(folder.report))
        folder.replace(
            self.header, (folder.bank, folder.index, folder.facts, folder.not_stored, folder.report, *others)
        )
        folder.clear_work()
        return report

    def _belonging(self, *, states: bool) -> list[Path]:
        """The files that belong together, each its successor where there is one."""
        folder = self.folder
        files = [folder.bank, folder.index, folder.facts, *([folder.states] if states else [])]
        files += [folder.backbone] if self.header.get("checkpoint") is None else []
        return [folder.next(path) if folder.next(path).exists() else path for path in files]

    def _pretrain(self, seconds: float, sizes: Mapping[str, int]) -> None:
        sizes = {"context": max(CONTEXT, self.tokens.tokens.shape[1]), **sizes}
        seed = self.settings.seed
        with self.timed("pretraining"):
            if "pretraining_steps" not in self.header:
                steps = steps_within(self.tokens, seconds, seed=seed, **sizes) if seconds > 0 else 0
                self.header["pretraining_steps"] = steps
                self.folder.write_header(self.header)
            steps = self.header["pretraining_steps"]
            with self.progress("pretraining the backbone", steps) as shown:
                trained = pretrain(self.tokens, steps, seed=seed, advance=shown.advance, **sizes)
        arrays, stated = trained.backbone.to_arrays()
        stated |= {
            "steps": steps,
            "steps_in_a_pass": trained.steps_in_a_pass,
            "tokens": trained.tokens,
            "loss_nats": trained.loss_nats if math.isfinite(trained.loss_nats) else None,
        }
        with refusals():
            save(self.folder.backbone, arrays, stated)

    def _resumed(self) -> Reached:
        """What the last pass that was saved came to, or an empty bank."""
        saved = self.folder.saved_pass
        with refusals():
            if not saved.exists():
                return Reached(Values.create(self.settings.experts, self.model.width).values, None, 0)
            arrays, header = load(saved)
        return Reached(jnp.asarray(arrays["values"]), arrays["losses_nats"], header["passes"])

    def _after_pass(self, state: Memorized, before: int, shown: Progress) -> None:
        """Show it, and save it if that does not take more than its share of the time."""
        now = time.perf_counter()
        left = int(state.open.sum())
        shown.say(f"writing, pass {before + state.passes}: {left:,} of {len(state.losses_nats):,} tokens to store")
        if self.is_addition:
            return
        if state.passes == 0:
            self._last_saved, self._saving = now, state.values.nbytes / _BYTES_PER_SECOND
        elif left and now - self._last_saved > self._saving / _SAVING_SHARE * (1 - _SAVING_SHARE):
            with writing(self.folder.work):
                self.folder.work.mkdir(exist_ok=True)
            arrays = {"values": state.values, "losses_nats": state.losses_nats}
            with refusals():
                save(self.folder.saved_pass, arrays, {"passes": before + state.passes}, overwrite=True)
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
        if not self.is_addition:
            self.folder.write_header(self.header)


def unembed(model: Backbone, state: jax.Array) -> jax.Array:
    """Logits of the next token; a function of a module, so that programs that use it are compiled once."""
    return model.unembed(state)

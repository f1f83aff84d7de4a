"""The memory of real facts: other wordings, unknown questions, forgetting, whole files, the founding paper's procedure.

python tests/benchmarks/memory.py SECTION [--quick] [--markdown] [--data FOLDER]
with SECTION one of paraphrases, unknown, forgetting, files, learned, founding.

The files are those of shared/data, which are not part of the project.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from processes import machine, print_table, worker_environment

_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_RATES = (0.002, 0.01, 0.03, 0.05, 0.1)
_RIGHT, _FALSE = 0.75, 0.05
_WRITING_SECONDS = {"exact": 15.0, "mixed": 60.0}


def _facts(path: Path, count: int | None = None) -> Any:
    """The facts of a file without its conflicts; `count` of them in a random order, the same for every count."""
    from sims.fact_files import read_facts
    from sims.fact_report import Row, facts_from_rows
    from sims.keyed import keyed_order

    facts = read_facts(path)
    if count is None:
        return facts
    rows = keyed_order(0, "benchmark of memory", len(facts))[:count].tolist()
    return facts_from_rows([Row(facts.questions[r], facts.answers[r], facts.lines[r]) for r in rows], source=str(path))


def _backbone(facts: Any, path: Path, steps: int) -> Any:
    """A folder with a backbone pretrained on these facts, for every memory of a section."""
    from mome_jax.saving import save
    from sims.memory.folder import Folder
    from sims.memory.memorizing import read_tokens
    from sims.memory.pretraining import one_pass, pretrain

    tokens = read_tokens(facts)
    trained = pretrain(tokens, min(steps, len(one_pass(tokens, 0))), context=256)
    path.mkdir()
    arrays, header = trained.backbone.to_arrays()
    save(Folder(path).backbone, arrays, header)
    return Folder(path)


def _memory(facts: Any, path: Path, backbone: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    from sims.memory.folder import Folder, Settings
    from sims.memory.memorizing import default_experts, memorize, read_tokens
    from sims.memory.memory import Memory
    from sims.memory.model import byte_model

    experts = default_experts(int(read_tokens(facts).answer_mask.sum()))
    report = memorize(facts, Folder(path), Settings(experts, **settings), model=byte_model(backbone), quiet=True)
    return Memory.load(path), report


@click.group()
def main() -> None:
    """Measure the memory, section by section."""


def _section(function: Any) -> Any:
    """What every section takes, and the machine on which it ran."""

    def run(quick: bool, markdown: bool, data: Path, **more: Any) -> None:
        with machine(), tempfile.TemporaryDirectory() as folder:
            function(quick, markdown, data, Path(folder), **more)

    run.__name__, run.__doc__ = function.__name__.removeprefix("_"), function.__doc__
    for option in (
        click.option("--quick", is_flag=True, help="Small; not to be quoted."),
        click.option("--markdown", is_flag=True, help="Tables for a README."),
        click.option(
            "--data", type=click.Path(path_type=Path, exists=True), default=_DATA, help="Folder of the files."
        ),
    ):
        run = option(run)
    return main.command()(run)


@_section
def _paraphrases(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """Store one wording of each fact, ask another; and questions of facts that are not stored."""
    from sims.memory.recall import Gate, read_open, read_paraphrases, verdict

    drawn = read_paraphrases(data / "pararel_paraphrases.csv.gz", *((500,) if quick else (5000,)), unknown=2000)
    backbone = _backbone(drawn.stored, folder / "backbone", 10 if quick else 100)
    kinds: dict[str, dict[str, Any]] = {
        "exact": {"addresses": "exact"},
        "nearest": {"addresses": "nearest"},
        "learned": {"addresses": "learned", "chosen": 32},
        "mixed .5": {"addresses": "mixed", "chosen": 32, "share": 0.5},
        "mixed .8": {"addresses": "mixed", "chosen": 32, "share": 0.8},
    }
    rows: list[Sequence[object]] = []
    for name, settings in kinds.items():
        memory, _ = _memory(drawn.stored, folder / name, backbone, **settings)
        with memory:
            stored = read_open(memory, drawn.stored.questions)
            for snap in (False, True) if settings["addresses"] in ("learned", "mixed") else (True,):
                asked, unknown = (read_open(memory, some, snap=snap) for some in (drawn.asked, drawn.unknown))
                learned = settings["addresses"] in ("learned", "mixed")
                label = f"{name}, snapped" if snap and learned else name
                alone = verdict(asked, drawn.stored.answers)
                rows.append((label, "open", "", _percent(alone.right), _percent(alone.wrong), "", "100.0 %", ""))
                for rate in _RATES:
                    gate = Gate.of(memory, rate)
                    found, false = verdict(asked, drawn.stored.answers, gate), verdict(unknown, [None] * 2000, gate)
                    good = found.right.share >= _RIGHT and false.wrong.share <= _FALSE
                    kept = _percent(verdict(stored, drawn.stored.answers, gate).right)
                    counts = (_percent(each) for each in (found.right, found.wrong, found.unknown))
                    rows.append((label, f"{rate:g}", kept, *counts, false.wrong, "met" if good else ""))
    headings = ("addresses", "q", "stored right", "right", "wrong", "unknown", "false answers", "75 % and 5 %")
    print_table(f"{len(drawn.asked):,} paraphrases, 2,000 unknown questions", headings, rows, markdown=markdown)


def _percent(rate: Any) -> str:
    return f"{rate.share:.1%}".replace("%", " %")


@_section
def _unknown(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """Questions that are not stored and are taken for known; bytes per fact beside T20. No bank is needed."""
    from sims.memory.folder import Settings
    from sims.memory.known import Index
    from sims.memory.recall import accepted, one_edit
    from theory.membership import false_answer_bits_lower

    facts = _facts(data / "entityquestions_test.csv", 4000 if quick else None)
    order = np.random.default_rng(0).permutation(len(facts))
    stored, held_out = (
        [facts.questions[row] for row in part.tolist()] for part in np.split(order, [len(facts) * 4 // 5])
    )
    asked = {"known": stored, "held out": held_out, "one edit": one_edit(stored)}
    asked |= {
        name: [question for question in _facts(data / f"{name}.csv").questions if question not in set(stored)]
        for name in ("country_facts", "truthfulqa", "pararel_uuid")
    }
    rows: list[Sequence[object]] = []
    for kind in ("exact", "nearest"):
        for rate in (0.1, 0.01, 0.001):
            settings = Settings(1, 1, addresses=kind, false_acceptance=rate)
            index = Index.of(stored, settings)
            held = 8 * index.filter.bytes / len(stored)
            if kind == "nearest":  # likeness needs the vectors as well
                held += 8 * (index.vectors.nbytes + index.identities.nbytes) / len(stored)
            for name, questions in asked.items():
                found = accepted(index, settings, questions)
                lower, upper = found.interval(0.99)
                inside = (
                    ""
                    if name == "known"
                    else ("yes" if lower <= rate <= upper else ("below" if upper < rate else "ABOVE"))
                )
                if name == "known":
                    inside = "all" if found.share == 1 else "NOT ALL"
                row = (kind, f"{rate:g}", name, f"{found.asked:,}", found, inside)
                rows.append((*row, f"{held / 8:.2f}", f"{float(false_answer_bits_lower(rate)) / 8:.2f}"))
    headings = ("addresses", "q", "questions", "asked", "accepted (95 %)", "q in 99 %", "bytes a fact", "T20")
    print_table(f"{len(stored):,} stored questions", headings, rows, markdown=markdown)


@_section
def _forgetting(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """The loss of held-out text with the memory and without it."""
    from sims.memory.recall import effect

    facts = _facts(data / "entityquestions_test.csv", 200 if quick else None)
    backbone = _backbone(facts, folder / "backbone", 10 if quick else 100)
    count = min(2000, len(facts))
    others = _facts(data / "truthfulqa.csv")
    short = [row for row in range(len(others)) if len((others.questions[row] + others.answers[row]).encode()) < 250]
    short = short[:100] if quick else short
    text = [others.questions[row] for row in short], [others.answers[row] for row in short]
    held = _facts(data / "pararel_trex.csv", count)
    stored = facts.questions[:count], facts.answers[:count]
    rows: list[Sequence[object]] = []
    for kind, settings in (("exact", {}), ("nearest", {}), ("mixed", {"chosen": 8})):
        memory, _ = _memory(facts, folder / kind, backbone, addresses=kind, **settings)
        with memory:
            measured = {
                "TruthfulQA": effect(memory, *text),
                "other templates": effect(memory, held.questions, held.answers),
                "TruthfulQA, gate open": effect(memory, *text, open_gate=True),
                "stored facts": effect(memory, *stored),
                "stored questions, other answers": effect(memory, stored[0], [*stored[1][1:], stored[1][0]]),
            }
        for name, found in measured.items():
            for label, which in (("rejected", ~found.known), ("accepted", found.known)):
                if which.any():
                    same = found.unchanged[which]
                    if label == "rejected" and not same.all():
                        raise SystemExit(f"{kind}, {name}: {int((~same).sum())} rejected tokens have other logits")
                    before, after = found.losses_before_nats[which], found.losses_after_nats[which]
                    numbers = f"{before.mean():.3f}", f"{after.mean():.3f}", f"{(after - before).mean():+.3f}"
                    rows.append((kind, name, label, f"{which.sum():,}", f"{same.mean():.1%}", *numbers))
    headings = ("addresses", "text", "gate", "tokens", "same bits", "loss before", "after", "change, nats")
    print_table(f"{len(facts):,} facts stored; loss of a token", headings, rows, markdown=markdown)


@_section
def _files(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """Memorize whole files on the command line, and check every answer from the saved files in a new process."""
    names = ["country_facts"] if quick else ["entityquestions_test", "pararel_uuid", "country_facts"]
    rows: list[Sequence[object]] = []
    for name in names:
        experts = ["--experts", str(2**20)] if name == "entityquestions_test" else []
        kinds = {"exact": ["--chosen", "4"], "mixed": ["--addresses", "mixed", "--chosen", "8", "--share", "0.5"]}
        for kind, flags in kinds.items():
            out = folder / f"{name}-{kind}"
            began = time.perf_counter()
            report = _command("memorize", data / f"{name}.csv", "--out", out, *flags, *experts)
            whole = time.perf_counter() - began
            checked = _command("check", out, data / f"{name}.csv")
            header = json.loads((out / "memory.json").read_text())
            seconds = header["seconds"]
            parts = (
                f"{seconds.get(part, 0.0):.1f}" for part in ("pretraining", "states", "addresses", "writing", "saving")
            )
            wanted = _WRITING_SECONDS[kind] if name == "entityquestions_test" else None
            met = "" if wanted is None else f"<= {wanted:g} s: {'met' if seconds['writing'] <= wanted else 'NOT MET'}"
            right = f"{checked['right']:,} of {checked['facts']:,}"
            rows.append(
                (name, kind, header["settings"]["experts"], header["passes"], *parts, f"{whole:.1f}", right, met)
            )
            assert report["facts"] == checked["facts"]
    timed = ("pretraining", "states", "addresses", "writing", "saving", "command")
    headings = ("file", "addresses", "experts", "passes", *timed, "exact recall", "writing")
    print_table("Seconds, and exact recall by greedy decoding in a new process", headings, rows, markdown=markdown)


def _command(verb: str, *arguments: object) -> dict[str, Any]:
    """What `mome VERB ... --json` says, in a process of its own."""
    program = "from figures.cli import main; main()"
    command = [sys.executable, "-c", program, "mome", verb, *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=worker_environment(), check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


@_section
def _learned(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """How many tokens of a file each kind of addresses stores, pass by pass, and how evenly experts are used."""
    from jax.tree_util import Partial

    from mome_jax.cross_entropy import memorizing
    from mome_jax.experts import Values
    from mome_jax.usage import balance
    from sims.memory.addressing import Addressing
    from sims.memory.backbone import hidden_states
    from sims.memory.due import tokens_due
    from sims.memory.folder import Settings
    from sims.memory.known import Index
    from sims.memory.memorizing import AIM, MARGIN, read_tokens, unembed
    from sims.memory.model import load_backbone

    facts = _facts(data / "entityquestions_test.csv", 2000 if quick else None)
    model = load_backbone(_backbone(facts, folder / "backbone", 10 if quick else 100))
    tokens = read_tokens(facts)
    states = hidden_states(model, tokens.tokens, tokens.answer_mask)
    experts = 2**17 if quick else 2**20
    rows: list[Sequence[object]] = []
    kinds: list[tuple[Any, int, float]] = [
        ("exact", 4, 0.5),
        ("mixed", 8, 0.5),
        ("mixed", 8, 0.8),
        ("learned", 8, 0.5),
        ("learned", 16, 0.5),
    ]
    for kind, chosen, share in kinds:
        settings = Settings(experts, chosen, addresses=kind, share=share)
        index = Index.of(facts.questions, Settings(experts))
        due = tokens_due(tokens, index.stored(), Addressing.of(settings, index.queries.width), chosen, 0)
        used = balance(np.bincount(np.asarray(due.selection.experts).ravel(), minlength=experts))
        threshold, began, left = MARGIN * float(np.log(2)), time.perf_counter(), []
        values = Values.create(experts, model.width).values
        program = Partial(unembed, model)
        options: dict[str, Any] = {"threshold_nats": threshold, "aim_nats": AIM * threshold, "most_passes": 20}
        for state in memorizing(values, states, due.targets, due.selection, program, **options):
            left.append(int((state.losses_nats > np.log(2)).sum()))
        seconds = time.perf_counter() - began
        label = f"{kind} {share:g}" if kind == "mixed" else kind
        passed = " ".join(map(str, left[1:]))
        even = f"{used.share_used:.2f}", f"{used.kl_nats:.2f}", f"{used.maximum_load:.0f}"
        rows.append((label, chosen, *even, f"{seconds:.1f}", left[-1], passed))
    headings = (
        "addresses",
        "k",
        "experts used",
        "KL, nats",
        "most used, times mean",
        "s",
        "left",
        "over ln 2 after each pass",
    )
    print_table(f"{len(states):,} answer tokens, {experts:,} experts", headings, rows, markdown=markdown)


@_section
def _founding(quick: bool, markdown: bool, data: Path, folder: Path) -> None:
    """The founding paper's procedure beside projection writes, on the same backbone and on exact addresses."""
    import jax.numpy as jnp
    from jax.tree_util import Partial

    from mome_jax.cross_entropy import memorize
    from mome_jax.descent import memorize_by_gradient
    from mome_jax.experts import Values
    from mome_jax.usage import balance
    from sims.memory.addressing import Addressing
    from sims.memory.backbone import hidden_states
    from sims.memory.due import tokens_due
    from sims.memory.folder import Settings
    from sims.memory.founding import chosen_by_state, generalization_pass
    from sims.memory.known import Index
    from sims.memory.memorizing import AIM, MARGIN, default_experts, read_tokens, unembed
    from sims.memory.pretraining import one_pass

    tokens = read_tokens(facts := _facts(data / "entityquestions_test.csv", 300 if quick else 2000))
    experts, chosen = default_experts(int(tokens.answer_mask.sum())), 4
    began = time.perf_counter()
    founded = generalization_pass(tokens, len(one_pass(tokens, 0)), experts, chosen)
    passed = time.perf_counter() - began
    states = hidden_states(founded.backbone, tokens.tokens, tokens.answer_mask)
    index = Index.of(facts.questions, Settings(experts))
    exact = tokens_due(tokens, index.stored(), Addressing.of(Settings(experts), index.queries.width), chosen, 0)
    by_state = chosen_by_state(founded.layer, states)
    bank: Any = founded.layer.bank.get_value()
    rows: list[Sequence[object]] = []
    for name, selection, values in (
        ("the state's, trained", by_state, np.asarray(bank.values)),
        ("exact", exact.selection, np.asarray(Values.create(experts, founded.backbone.width).values)),
    ):
        used = balance(np.bincount(np.asarray(selection.experts).ravel(), minlength=experts))
        for way, write in (("gradient steps", memorize_by_gradient), ("projection", memorize)):
            began, threshold = time.perf_counter(), MARGIN * float(np.log(2))
            options: dict[str, Any] = {"threshold_nats": threshold, "aim_nats": AIM * threshold, "most_passes": 10}
            program = Partial(unembed, founded.backbone)
            done = write(jnp.array(values), states, exact.targets, selection, program, **options)
            left = done.losses_nats > np.log(2)
            whole = len(facts) - np.unique(exact.facts[left]).size
            numbers = (
                f"{time.perf_counter() - began:.1f}",
                f"{left.sum():,}",
                f"{whole:,}",
                f"{done.losses_nats.mean():.3f}",
            )
            rows.append((name, f"{used.effective_number:,.0f}", way, done.passes, *numbers))
    title = (
        f"{len(facts):,} facts, {len(exact):,} tokens, {experts:,} experts; pass of generalization training: "
        f"{founded.steps} steps, {passed:.0f} s, {founded.loss_nats:.2f} nats a token"
    )
    headings = (
        "addresses",
        "experts used evenly",
        "writing",
        "passes",
        "s",
        "tokens over ln 2",
        "facts stored",
        "mean loss",
    )
    print_table(title, headings, rows, markdown=markdown)


if __name__ == "__main__":
    main()

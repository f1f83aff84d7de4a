"""Beside capped logits: what cannot be stored is refused or explained, what can be is stored."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sims.memory.capped import check_cap, least_loss_nats, reachable_aim_nats
from sims.memory.folder import Folder
from sims.memory.memorizing import AIM, LEARNED_AIM_NATS, MARGIN
from tests.sims.checkpoint_making import tiny_checkpoint
from tests.sims.memory_making import assert_all_right, mome, written
from theory.console import REFUSED, Refusal

FACTS = [(f"who leads group {number}?", f"Parthis {number * 37 % 101}") for number in range(8)]
GOAL = MARGIN * math.log(2)


@dataclass(frozen=True)
class Sizes:
    """What is asked of a backbone before anything is computed with it."""

    vocabulary: int
    logit_cap: float | None


def gemma(folder: Path, cap: float) -> Path:
    sizes = {"num_hidden_layers": 1, "vocab_size": 320, "eos_token_id": 2, "final_logit_softcapping": cap}
    return tiny_checkpoint(folder / f"gemma {cap:g}", "gemma2", tokenizer="pieces", **sizes)


@pytest.mark.parametrize(("cap", "vocabulary"), [(0.5, 2), (2.0, 5), (1.5, 40)])
def test_no_logits_within_the_cap_have_less_loss(cap, vocabulary):
    least = least_loss_nats(cap, vocabulary)
    logits = np.random.default_rng(0).uniform(-cap, cap, (5000, vocabulary))
    logits[0], logits[0, 0] = -cap, cap
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]
    assert losses.min() >= least - 1e-12
    assert losses[0] == pytest.approx(least, rel=1e-12)


def test_who_is_refused():
    """ln(V - 1) / 2 is the cap at which a token can have probability 1/2; Gemma 2 has 30."""
    for vocabulary in (320, 256_000):
        edge = math.log(vocabulary - 1) / 2
        check_cap(Sizes(vocabulary, edge + 0.1), math.log(2), "x")  # pyright: ignore[reportArgumentType]
        with pytest.raises(Refusal, match=r"x: its logits are capped at .* or a higher --threshold-nats"):
            check_cap(Sizes(vocabulary, edge + 1e-3), GOAL, "x")  # pyright: ignore[reportArgumentType]
        with pytest.raises(Refusal, match=r"take a checkpoint with a higher cap$"):
            check_cap(Sizes(vocabulary, edge - 1e-3), math.log(2), "x")  # pyright: ignore[reportArgumentType]
    check_cap(Sizes(256_000, 30.0), GOAL, "x")  # pyright: ignore[reportArgumentType]
    check_cap(Sizes(256_000, None), 1e-300, "x")  # pyright: ignore[reportArgumentType]


def test_the_aim_lies_between_what_can_be_reached_and_the_goal():
    for cap in (None, 30.0):
        for aim in (AIM * GOAL, LEARNED_AIM_NATS):
            assert reachable_aim_nats(aim, GOAL, Sizes(256_000, cap)) == aim  # pyright: ignore[reportArgumentType]
    for cap in (3.0, 3.5, 4.0):
        aim = reachable_aim_nats(AIM * GOAL, GOAL, Sizes(320, cap))  # pyright: ignore[reportArgumentType]
        assert aim > AIM * GOAL
        assert least_loss_nats(cap, 320) < aim < GOAL
    with pytest.raises(ValueError, match="cannot be the goal"):
        reachable_aim_nats(AIM * GOAL, GOAL, Sizes(320, 2.8))  # pyright: ignore[reportArgumentType]


def test_a_cap_that_is_too_low_is_refused_before_anything_is_made(tmp_path):
    checkpoint, facts = gemma(tmp_path, 2.0), written(tmp_path / "facts.csv", FACTS)
    for flags in ([], ["--plan"]):
        result = mome("memorize", facts, "--out", tmp_path / "memory", "--backbone", checkpoint, *flags)
        assert result.exit_code == REFUSED, result.output
        assert result.output.splitlines() == [
            f"Error: {checkpoint}: its logits are capped at 2 (final_logit_softcapping), so none of its 320 tokens can "
            "have less than 1.92 nats, a probability of 0.146, and facts are stored below 0.624; take a checkpoint "
            "with a higher cap"
        ]
    assert not (tmp_path / "memory").exists()


def test_where_a_cap_leaves_little_room_facts_are_stored_and_changed(tmp_path):
    """A cap of 12 leaves the worst token of this small unembedding 0.27 nats at best; the learned half aims lower."""
    checkpoint, folder, facts = gemma(tmp_path, 12.0), tmp_path / "memory", FACTS[:4]
    words = ["--experts", 1024, "--addresses", "mixed", "--backbone", checkpoint, "--quiet", "--json"]
    result = mome("memorize", written(tmp_path / "facts.csv", facts), "--out", folder, *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["beyond_reach"] == {"tokens": 0, "tried": 0, "cap": None}
    assert_all_right(folder, facts)
    assert mome("edit", folder, FACTS[3][0], "--answer", "Paris").exit_code == 0
    assert_all_right(folder, [*facts[:3], (FACTS[3][0], "Paris")])
    # With a threshold that this cap never lets tokens reach it is not the bank that is too full.
    header = Folder(folder).read_header()
    Folder(folder).write_header(header | {"settings": header["settings"] | {"threshold_nats": 0.01}})
    refused = mome("edit", folder, FACTS[3][0], "--answer", "Parthis 5")
    assert refused.exit_code == REFUSED
    assert "'Parthis 5' cannot be stored; it takes a checkpoint whose logits are not capped at 12" in refused.output


def test_what_a_cap_keeps_out_is_not_blamed_on_the_experts(tmp_path):
    """The bound lets a cap of 6 pass, the small unembedding reaches 1.2 nats at best."""
    checkpoint, facts = gemma(tmp_path, 6.0), written(tmp_path / "facts.csv", FACTS[:4])
    words = ["--out", tmp_path / "memory", "--backbone", checkpoint, "--passes", 1, "--quiet"]
    result = mome("memorize", facts, *words)
    assert result.exit_code == REFUSED
    assert len(result.output.splitlines()) == 1
    assert re.search(
        r"--fresh and a checkpoint whose logits are not capped at 6: for (\d\d) of \1 tokens", result.output
    )

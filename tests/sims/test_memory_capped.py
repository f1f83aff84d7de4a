"""Beside capped logits: what cannot be stored is refused or explained, what can be is reached without overshooting."""

import json
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mome_jax.cross_entropy import wanted_shift
from sims.memory.capped import careful_shift, check_cap, least_loss_nats, reachable_aim_nats
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


ROWS = np.random.default_rng(1).normal(0, 0.3, (300, 32)).astype(np.float32)
STATES = jnp.asarray(np.random.default_rng(2).normal(0, 1, (20, 32)), jnp.float32)
TARGETS = jnp.arange(20, dtype=jnp.int32)


def unembed(state: jax.Array, cap: float | None) -> jax.Array:
    logits = jnp.asarray(ROWS) @ state
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def losses(shifts: jax.Array, cap: float | None) -> np.ndarray:
    logits = np.asarray(jax.vmap(partial(unembed, cap=cap))(STATES + shifts), np.float64)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), np.arange(20)]


def shifts_of(find, cap: float | None, aim_nats: float) -> jax.Array:
    one = partial(find, unembed=partial(unembed, cap=cap), aim_nats=jnp.float32(aim_nats))
    return jax.jit(jax.vmap(one))(STATES, TARGETS)


def test_without_a_cap_careful_shifts_reach_the_aim_from_above_as_plain_ones_do():
    for find in (careful_shift, wanted_shift):
        shifts = shifts_of(find, None, 0.1)
        reached = losses(shifts, None)
        assert (reached >= 0.1 * (1 - 1e-3)).all()
        assert (reached <= 0.1 * 1.02).mean() >= 0.9  # at most 8 steps are taken
        shorter = losses(0.98 * shifts, None)
        assert (shorter > reached).all()


@pytest.mark.parametrize("cap", [4.0, 8.0])
def test_under_a_cap_careful_shifts_come_near_the_best_and_plain_ones_lead_away(cap):
    """The best by a second method: thousands of small steps down the loss itself."""
    optimizer = optax.adam(0.02)

    def loss(shift: jax.Array, state: jax.Array, target: jax.Array) -> jax.Array:
        logits = unembed(state + shift, cap)
        return jax.nn.logsumexp(logits) - logits[target]

    def descended(state: jax.Array, target: jax.Array) -> jax.Array:
        def step(carried, _):
            shift, moments = carried
            with jax.numpy_dtype_promotion("standard"):
                update, moments = optimizer.update(jax.grad(loss)(shift, state, target), moments)
            return (shift + update, moments), None

        nothing = jnp.zeros_like(state)
        return jax.lax.scan(step, (nothing, optimizer.init(nothing)), None, length=3000)[0][0]

    best = losses(jax.jit(jax.vmap(descended))(STATES, TARGETS), cap)
    careful = losses(shifts_of(careful_shift, cap, 1e-5), cap)
    assert best.min() > 1e-4  # nobody can reach what is aimed at
    assert (careful >= best - 1e-3).all()
    assert (careful <= losses(jnp.zeros_like(STATES), cap)).all()
    assert np.median(careful) < 1.1 * np.median(best)
    plain = losses(shifts_of(wanted_shift, cap, 1e-5), cap)
    assert np.median(plain) > 3 * np.median(best)


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

"""Bits, parameters and operations of an adaptation, against XLA's own count and counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.adapting.answers import random_answers
from sims.adapting.budget import budget, random_bits, reading_flops, told_bits
from sims.adapting.losses import token_losses
from sims.adapting.methods import Full, LowRank, MemoryExperts
from sims.memory.byte_backbone import ByteBackbone
from sims.tokens import tokenize

# All of one length: XLA counts what is padded.
FACTS = tokenize([f"What is the color of the house number {number:02}?" for number in range(4)], random_answers(4, 0))


@pytest.fixture(scope="module")
def backbone() -> ByteBackbone:
    return ByteBackbone.fresh(jax.random.key(0), FACTS.tokens.shape[1], width=128, layers=2, heads=2)


def compiled_flops(function, *arguments) -> float:
    found = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return float((found[0] if isinstance(found, list) else found)["flops"])


def total_loss(network, tokens):
    first = int(FACTS.prompt_lengths[0])
    states = jax.vmap(network.hidden)(tokens[:, :-1])[:, first - 1 :]
    losses, _ = token_losses(jax.vmap(jax.vmap(network.unembed))(states), tokens[:, first:])
    return jnp.sum(losses)


def test_flops_are_those_that_xla_counts(backbone):
    """Within 10 %: XLA adds the operations of norms, softmax and GELU, and of the cross-entropy."""
    tokens = jnp.asarray(FACTS.tokens)
    forward = reading_flops(backbone, FACTS, unembedded=True)
    assert compiled_flops(total_loss, backbone, tokens) == pytest.approx(forward, rel=0.1)
    full = budget(backbone, Full(), FACTS, 1.0, "adam").flops_per_epoch
    assert full == 3 * forward
    assert compiled_flops(jax.grad(total_loss), backbone, tokens) == pytest.approx(full, rel=0.1)


def test_frozen_weights_save_their_gradients(backbone):
    """Factors beside the kernels cost 6 r (in + out) a token; this network merges them: 2 in out a token, and that."""
    tokens, method = jnp.asarray(FACTS.tokens), LowRank(1)
    forward = reading_flops(backbone, FACTS, unembedded=True)
    spent = budget(backbone, method, FACTS, 1.0, "adam").flops_per_epoch
    assert spent == 2 * forward + 6 * 4 * (FACTS.tokens.shape[1] - 1) * method.trainable_parameters(backbone)
    maps = sum(inputs * outputs for inputs, outputs in backbone.kernels().values())
    merged = 2 * forward + 2.0 * 4 * (FACTS.tokens.shape[1] - 1) * maps
    updates = method.start(backbone, jax.random.key(0))
    counted = compiled_flops(
        jax.grad(lambda some, network, tokens: total_loss(method.built(network, some), tokens)),
        updates,
        backbone,
        tokens,
    )
    assert counted == pytest.approx(merged, rel=0.1)


def test_factors_beside_frozen_maps_cost_what_is_said(tmp_path):
    """Within 10 %, at a rank at which they cost more than the gradients of all weights would, and at a small one."""
    pytest.importorskip("tokenizers")
    from sims.checkpoints.checkpoint import read_checkpoint
    from tests.sims.checkpoint_making import tiny_checkpoint

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    network = read_checkpoint(tiny_checkpoint(tmp_path / "checkpoint", "mistral", **sizes)).backbone
    for rank in (8, 64):
        method = LowRank(rank)
        counted = compiled_flops(
            jax.grad(lambda some, network, tokens, method=method: total_loss(method.built(network, some), tokens)),
            method.start(network, jax.random.key(0)),
            network,
            jnp.asarray(FACTS.tokens),
        )
        spent = budget(network, method, FACTS, 1.0, "adam").flops_per_epoch
        assert counted == pytest.approx(spent, rel=0.1)
        assert (spent > 3 * reading_flops(network, FACTS, unembedded=True)) == (rank == 64)


def test_parameters_are_counted_on_the_arrays(backbone):
    assert Full().trainable_parameters(backbone) == sum(leaf.size for leaf in jax.tree.leaves(backbone))
    by_hand = 2 * 5 * ((128 + 384) + (128 + 128) + (128 + 512) + (512 + 128))
    assert LowRank(5).trainable_parameters(backbone) == by_hand
    assert MemoryExperts(64, 2).trainable_parameters(backbone) == 64 * 128


def test_a_rank_too_small_for_the_facts_is_marked(backbone):
    bits = random_bits(817)
    assert bits == 817 * 192
    of_a_rank = LowRank(1).trainable_parameters(backbone)
    enough = -(-4 * bits // of_a_rank)
    marked = [budget(backbone, LowRank(rank), FACTS, bits, "adam").capacity_limited for rank in (enough - 1, enough)]
    assert marked == [True, False]


def test_told_bits_are_the_code_length():
    assert told_bits(np.array([np.log(2.0), np.log(8.0)])) == pytest.approx(4.0)
    assert told_bits(np.full(3, 32 * np.log(64.0))) == pytest.approx(random_bits(3))


def test_a_memory_reads_once_and_then_touches_what_is_due(backbone):
    found = {
        optimizer: budget(backbone, MemoryExperts(64, 2), FACTS, 1.0, optimizer) for optimizer in ("adam", "writes")
    }
    states = compiled_flops(lambda network, tokens: jax.vmap(network.hidden)(tokens), backbone, FACTS.tokens[:, :-1])
    assert found["adam"].flops_before == pytest.approx(states, rel=0.1)
    due, unembedding, reading = 4 * 33, 2 * 128 * 259, 2 * 2 * 128
    assert found["adam"].flops_per_epoch == due * 2 * (unembedding + reading)
    assert found["writes"].flops_per_epoch > found["adam"].flops_per_epoch
    assert found["adam"].flops_until(3) == found["adam"].flops_before + 3 * found["adam"].flops_per_epoch

"""Pretrained decoders: logits of the reference implementation, the cache, updates of low rank, bfloat16, FLOPs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.checkpoints.checkpoint import read_checkpoint
from sims.checkpoints.decoder import CheckpointBackbone
from sims.checkpoints.design import Rotary
from sims.memory.backbone import Adaptable, Backbone, CachedBackbone, LowRankUpdate
from tests.sims.checkpoint_making import CONFIGS, GOLDEN_COLUMNS, GOLDEN_TOKENS, tiny_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "logits.npz"
AGREES = 1e-4

# A detail that a loader may get wrong, for the family that has it: what the network would then be.
WRONG = [
    ("llama", "no scaling", lambda design: turned(design, kind="default", factor=1.0)),
    ("llama", "linear scaling", lambda design: turned(design, kind="linear")),
    ("llama", "another base", lambda design: turned(design, base=20000.0)),
    ("llama", "another epsilon", lambda design: replace(design, epsilon=1e-2)),
    ("llama, linear", "no scaling", lambda design: turned(design, factor=1.0)),
    ("mistral", "no window", lambda design: windowed(design, lambda layer: None)),
    ("mistral", "window of one more", lambda design: windowed(design, lambda layer: 8)),
    ("qwen2", "windows in every layer", lambda design: windowed(design, lambda layer: 9)),
    ("qwen3", "scores of whole width", lambda design: replace(design, score_divisor=8.0**0.5)),
    ("gemma", "exact gelu", lambda design: replace(design, activation="gelu")),
    ("gemma2", "windows in the other layers", lambda design: windowed(design, lambda layer: 6 if layer % 2 else None)),
    ("gemma2", "no cap of scores", lambda design: replace(design, score_cap=None)),
    ("gemma2", "no cap of logits", lambda design: replace(design, logit_cap=None)),
    ("gemma2", "scores by the head", lambda design: replace(design, score_divisor=12.0**0.5)),
    ("gemma3_text", "one base for all layers", lambda design: turned(design, base=1e6)),
    ("gemma3_text", "linear everywhere", lambda design: turned(design, kind="linear", factor=4.0)),
]


def turned(design, **changes):
    layers = [replace(layer, rotary=replace(layer.rotary, **changes)) for layer in design.layers]
    return replace(design, layers=tuple(layers))


def windowed(design, window):
    layers = [replace(layer, window=window(number)) for number, layer in enumerate(design.layers)]
    return replace(design, layers=tuple(layers))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, CheckpointBackbone]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        family: read_checkpoint(tiny_checkpoint(folder / str(place), family)).backbone
        for place, family in enumerate(CONFIGS)
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as found:
        return dict(found)


# Compiles in half the time; what is compiled here runs once.
jit_quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@jax.jit
def every_logit(backbone: CheckpointBackbone, tokens: jax.Array) -> jax.Array:
    return jax.vmap(backbone.unembed)(backbone.hidden(tokens))


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_reference_implementation(family, backbones, golden):
    logits = every_logit(backbones[family], GOLDEN_TOKENS)
    assert logits.dtype == jnp.float32
    assert np.abs(logits[:, GOLDEN_COLUMNS] - golden[family]).max() < AGREES


@pytest.mark.parametrize(("family", "detail", "change"), WRONG, ids=[": ".join(wrong[:2]) for wrong in WRONG])
def test_every_detail_shows_in_the_golden_logits(family, detail, change, backbones, golden):
    wrong = replace(backbones[family], design=change(backbones[family].design))
    logits = jit_quickly(every_logit.__wrapped__)(wrong, GOLDEN_TOKENS)[:, GOLDEN_COLUMNS]
    assert np.abs(logits - golden[family]).max() > 3 * AGREES


@pytest.mark.parametrize("family", CONFIGS)
def test_it_is_an_adaptable_backbone_with_a_cache(family, backbones):
    found = backbones[family]
    assert isinstance(found, Backbone)
    assert isinstance(found, CachedBackbone)
    assert isinstance(found, Adaptable)
    assert (found.width, found.vocabulary, found.context) == (32, 288, 128)
    assert found.parameters == sum(weight.size for weight in found.weights.values())
    for name, (inputs, outputs) in found.kernels().items():
        assert found.weights[name].shape == (outputs, inputs)


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_going_on_from_a_cache_is_reading_all_of_it(family, backbones):
    """Rows that have read unlike numbers of tokens go on for more tokens than the windows see; the ring turns over."""
    lengths, more, room, first_slot, reach = np.array([13, 5, 1]), 9, 11, 6, 16
    tokens = np.random.default_rng(0).integers(0, 288, (3, reach + more)).astype(np.int32)
    backbone = backbones[family]
    expected = np.asarray(jit_quickly(jax.vmap(backbone.hidden))(tokens))

    # What stands after the length must not matter.
    begin = jit_quickly(jax.vmap(lambda row, length: backbone.begin(row, length, room)))
    cache, state = begin(tokens[:, :reach], lengths)
    advance = jit_quickly(jax.vmap(backbone.advance, in_axes=(0, 0, None, None)))
    np.testing.assert_allclose(state, expected[np.arange(3), lengths - 1], atol=2e-5)
    for count in range(more):
        slot = np.int32((first_slot + count) % room)
        cache, state = advance(cache, tokens[np.arange(3), lengths + count], np.int32(count), slot)
        np.testing.assert_allclose(state, expected[np.arange(3), lengths + count], atol=2e-5)


def test_logits_are_causal(backbones):
    before = every_logit(backbones["gemma2"], GOLDEN_TOKENS)
    after = every_logit(backbones["gemma2"], np.where(np.arange(40) < 20, GOLDEN_TOKENS, np.int32(7)))
    np.testing.assert_array_equal(before[:20], after[:20])
    assert not np.allclose(before[20:], after[20:])


def test_a_token_outside_the_vocabulary_gives_no_number(backbones):
    logits = every_logit(backbones["gemma"], np.where(np.arange(40) == 30, np.int32(288), GOLDEN_TOKENS))
    assert np.isnan(logits[30:]).all()


def test_more_tokens_than_the_context_are_refused(backbones):
    with pytest.raises(ValueError, match="129 tokens are more than the context of 128"):
        backbones["gemma"].hidden(np.zeros(129, np.int32))


def random_updates(backbone, rank, seed, spread=0.3):
    rng = np.random.default_rng(seed)
    return {
        name: LowRankUpdate(
            *(jnp.asarray(rng.normal(0, spread, shape), jnp.float32) for shape in ((inputs, rank), (rank, outputs)))
        )
        for name, (inputs, outputs) in backbone.kernels().items()
    }


def test_updates_beside_the_maps_are_updates_merged_into_them(backbones):
    backbone = backbones["qwen2"]
    first, second = random_updates(backbone, 3, seed=1), random_updates(backbone, 2, seed=2)
    del second["layers.1.mlp.up_proj"]
    merged = dict(backbone.weights)
    for updates, scale in ((first, 0.5), (second, -2.0)):
        for name, (down, up) in updates.items():
            merged[name] = merged[name] + scale * (down @ up).T
    beside = backbone.with_updates(first, 0.5).with_updates(second, -2.0)
    expected = every_logit(replace(backbone, weights=merged), GOLDEN_TOKENS)
    np.testing.assert_allclose(every_logit(beside, GOLDEN_TOKENS), expected, atol=2e-4)
    assert np.abs(expected - every_logit(backbone, GOLDEN_TOKENS)).max() > 1


def test_an_update_of_zero_changes_nothing_and_has_a_gradient(backbones):
    """As LoRA begins: down is random, up is zero."""
    backbone = backbones["llama"]
    drawn = random_updates(backbone, 2, seed=3)
    updates = {name: LowRankUpdate(down, jnp.zeros_like(up)) for name, (down, up) in drawn.items()}

    def loss(updates):
        return jnp.mean(jnp.square(every_logit(backbone.with_updates(updates, 1.0), GOLDEN_TOKENS)))

    value, gradient = jit_quickly(jax.value_and_grad(loss))(updates)
    np.testing.assert_allclose(value, jnp.mean(jnp.square(every_logit(backbone, GOLDEN_TOKENS))), rtol=1e-6)
    assert all(np.abs(change.up).max() > 0 for change in gradient.values())
    assert all(np.abs(change.down).max() == 0 for change in gradient.values())


def test_updates_of_unknown_maps_are_refused(backbones):
    update = LowRankUpdate(jnp.zeros((32, 1)), jnp.zeros((1, 288)))
    with pytest.raises(ValueError, match=r"no linear map is called lm_head, norm"):
        backbones["llama"].with_updates({"norm": update, "lm_head": update}, 1.0)


def products(jaxpr):
    """Every matrix product in a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in equation.params.values():
            yield from products(inner.jaxpr) if hasattr(inner, "jaxpr") else ()


def test_flops_are_those_of_the_products_in_the_program(backbones):
    for family in ("mistral", "gemma"):
        backbone, counted = backbones[family], 0
        for equation in products(jax.make_jaxpr(every_logit)(backbone, GOLDEN_TOKENS).jaxpr):
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            counted += 2 * equation.outvars[0].aval.size * int(np.prod([left[axis] for axis in contracted]))
        assert backbone.forward_flops(len(GOLDEN_TOKENS)) == counted


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_bfloat16_multiplies_in_bfloat16_and_adds_up_in_float32(family, tmp_path, backbones, golden):
    short = read_checkpoint(tiny_checkpoint(tmp_path / "short", family), dtype="bfloat16").backbone
    matrices = [weight for weight in short.weights.values() if weight.ndim == 2]
    assert {weight.dtype for weight in matrices} == {jnp.dtype(jnp.bfloat16)}
    for equation in products(jax.make_jaxpr(every_logit)(short, GOLDEN_TOKENS).jaxpr):
        assert {variable.aval.dtype for variable in equation.invars} == {jnp.dtype(jnp.bfloat16)}
        assert equation.outvars[0].aval.dtype == jnp.float32
    exact = every_logit(backbones[family], GOLDEN_TOKENS)[:, GOLDEN_COLUMNS]
    deviation = every_logit(short, GOLDEN_TOKENS)[:, GOLDEN_COLUMNS] - exact
    # The reference keeps the residual stream in bfloat16 too; rounding less often, this must not be further off.
    assert 1e-3 < np.sqrt(np.mean(deviation**2)) < golden[f"{family}, deviation of bfloat16"]


def test_frequencies_of_llama3_by_their_definition():
    """The three cases of the reference, one by one, with a wavelength in each."""
    found = Rotary(10000.0, "llama3", factor=8.0, slow=1.0, fast=4.0, original_context=256).frequencies(16)
    plain = 10000.0 ** (-np.arange(8) / 8)
    cases = set()
    for frequency, plain_frequency in zip(found, plain, strict=True):
        wavelength = 2 * np.pi / plain_frequency
        if wavelength < 256 / 4:
            cases.add("kept")
            expected = plain_frequency
        elif wavelength > 256:
            cases.add("divided")
            expected = plain_frequency / 8
        else:
            cases.add("blended")
            smooth = (256 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * plain_frequency / 8 + smooth * plain_frequency
        assert frequency == pytest.approx(expected, rel=1e-12)
    assert cases == {"kept", "divided", "blended"}

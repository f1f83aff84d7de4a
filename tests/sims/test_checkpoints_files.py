"""Checkpoint folders: files that say the same in other ways, fingerprints, memory, and all that is refused."""

import json
import re
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sims.checkpoints import weights
from sims.checkpoints.checkpoint import plan_checkpoint, read_checkpoint
from sims.checkpoints.config import design_of
from tests.sims.checkpoint_making import CONFIGS, tiny_checkpoint, tiny_config, tiny_weights, write_weights
from theory.console import Refusal


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("whole") / "llama", "llama")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "llama"))


def rewrite(file: Path, **changes) -> None:
    found = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in found.items() if value != "absent"}))


def same_weights(one, two) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one.backbone.weights, two.backbone.weights))


def test_shards_are_the_whole(whole, tmp_path):
    shards = tiny_checkpoint(tmp_path / "shards", "llama", shards=3)
    assert len(list(shards.glob("*.safetensors"))) == 3
    one, many = read_checkpoint(whole), read_checkpoint(shards)
    assert same_weights(one, many)
    assert one.fingerprint == many.fingerprint
    assert one.family == "llama"


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_floats_in_the_file_are_read_as_they_are(kind, whole, folder):
    tensors = {name: tensor.astype(kind) for name, tensor in load_file(whole / "model.safetensors").items()}
    write_weights(folder, tensors)
    read = read_checkpoint(folder).backbone
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read.weights[weights._short(name)], tensor.astype(np.float32))


def test_everything_that_changes_a_number_changes_the_fingerprint(whole, folder):
    found = {read_checkpoint(whole).fingerprint, read_checkpoint(whole, dtype="bfloat16").fingerprint}
    found.add(read_checkpoint(whole, template="{question}\n").fingerprint)
    assert read_checkpoint(folder).fingerprint in found
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][5] = np.nextafter(tensors["model.norm.weight"][5], np.float32(9))
    write_weights(folder, tensors)
    found.add(read_checkpoint(folder).fingerprint)
    rewrite(folder / "config.json", rms_norm_eps=2e-5)
    found.add(read_checkpoint(folder).fingerprint)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    rewrite(folder / "tokenizer.json", model=model | {"merges": model["merges"][:-1]})
    found.add(read_checkpoint(folder).fingerprint)
    assert len(found) == 6


def test_what_only_files_of_a_certain_age_have_is_left_alone(folder, whole):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    write_weights(folder, tensors)
    assert same_weights(read_checkpoint(folder), read_checkpoint(whole))


def test_an_embedding_that_is_in_the_file_twice_is_read_once(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tied", "gemma")
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert "lm_head" not in read_checkpoint(folder).backbone.weights


def test_the_decoder_of_a_gemma_3_that_sees_images_is_a_gemma_3(tmp_path):
    text = read_checkpoint(tiny_checkpoint(tmp_path / "text", "gemma3_text"))
    for place, prefix in enumerate(["language_model.model.", "model.language_model."]):
        folder = tiny_checkpoint(tmp_path / str(place), "gemma3_text")
        config = json.loads((folder / "config.json").read_text())
        rewrite(folder / "config.json", model_type="gemma3", text_config=config, vision_config={"hidden_size": 4})
        tensors = {name.replace("model.", prefix, 1): tensor for name, tensor in tiny_weights(config, seed=6).items()}
        tower = prefix.replace("language_model", "vision_tower").replace("vision_tower.model.", "vision_tower.")
        write_weights(folder, {**tensors, f"{tower}encoder.weight": np.ones((2, 2), np.float32)})
        found = read_checkpoint(folder)
        assert found.backbone.design == text.backbone.design
        assert same_weights(found, text)


def test_newer_files_say_the_same_in_other_words():
    gemma = tiny_config("gemma3_text")
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    newer = {name: value for name, value in gemma.items() if not name.startswith("rope_")}
    del newer["sliding_window_pattern"]
    newer["layer_types"] = kinds
    newer["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    assert design_of(newer) == design_of(gemma)
    llama = tiny_config("llama")
    scaling = llama.pop("rope_scaling") | {"rope_theta": llama.pop("rope_theta")}
    assert design_of({**llama, "rope_parameters": scaling}) == design_of(tiny_config("llama"))
    assert design_of({**tiny_config("llama"), "rope_parameters": scaling}) == design_of(tiny_config("llama"))


def test_files_that_state_rotary_positions_twice_must_mean_one_thing():
    default = {"rope_type": "default", "rope_theta": 10000.0}
    other = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    for parameters in (default, other, {"full_attention": other, "sliding_attention": default}):
        with pytest.raises(Refusal, match="rope_parameters and rope_scaling differ; keep the one that is meant"):
            design_of(tiny_config("llama") | {"rope_parameters": parameters})
    yarn = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "rope_parameters": default}
    with pytest.raises(Refusal, match="'yarn' is not known"):
        design_of(tiny_config("llama") | yarn)


@pytest.mark.parametrize(
    "parameters",
    [
        {"full_attention": {"rope_theta": 1e6}},
        {"sliding_attention": {"rope_type": "yarn", "rope_theta": 1e4}},
        {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_type": "default"}},
        {"full_attention": {"rope_theta": 1e6}, "sliding_attention": None},
        {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}, "rope_type": "yarn"},
    ],
)
def test_rotary_positions_of_gemma_3_are_stated_whole(parameters):
    config = {"rope_parameters": parameters, "rope_scaling": None}
    with pytest.raises(Refusal, match="not an object with a rope_theta for full_attention and one for sliding"):
        design_of(tiny_config("gemma3_text") | config)


def test_absent_entries_mean_what_the_reference_takes_them_for():
    """The text_config of Gemma 3 as it is published, which leaves most out, and an early Mistral."""
    gemma = design_of(
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
        }
    )
    assert (gemma.heads, gemma.key_heads, gemma.head, gemma.vocabulary, gemma.tied) == (8, 4, 256, 262208, True)
    assert gemma.score_divisor == 16
    assert [number for number, layer in enumerate(gemma.layers) if layer.window is None] == [5, 11, 17, 23, 29]
    assert (gemma.layers[5].rotary.base, gemma.layers[5].rotary.factor) == (1e6, 8)
    assert (gemma.layers[4].rotary.base, gemma.layers[4].rotary.factor) == (1e4, 1)
    mistral = tiny_config("mistral", head_dim=None)
    assert design_of(mistral).head == 8
    del mistral["sliding_window"]
    assert {layer.window for layer in design_of(mistral).layers} == {4096}
    assert {layer.window for layer in design_of({**mistral, "sliding_window": None}).layers} == {None}
    assert design_of(tiny_config("gemma", hidden_activation=None, hidden_act="gelu")).activation == "gelu, tanh"


# Sizes that are published for checkpoints, and the number of parameters that their makers state or that is counted.
PUBLISHED = {
    "Llama 3.2 1B": (1235814400, "llama", (128256, 2048, 8192, 16, 32, 8), {"tie_word_embeddings": True}),
    "Mistral 7B": (7241732096, "mistral", (32000, 4096, 14336, 32, 32, 8), {"head_dim": None}),
    "Qwen 2.5 0.5B": (494032768, "qwen2", (151936, 896, 4864, 24, 14, 2), {}),
    "Gemma 2 2B": (2614341888, "gemma2", (256000, 2304, 9216, 26, 8, 4), {"head_dim": 256}),
    "Gemma 3 1B": (999885952, "gemma3_text", (262144, 1152, 6912, 26, 4, 1), {"head_dim": 256}),
}
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name):
    count, family, sizes, others = PUBLISHED[name]
    named = dict(zip((*_SIZES, "num_key_value_heads"), sizes, strict=True))
    assert design_of(tiny_config(family, **named, **others)).parameters == count


def test_the_memory_is_stated_and_asked_for_before_a_number_is_read(whole, monkeypatch):
    plan = plan_checkpoint(whole)
    largest = 4 * 288 * 32
    assert 4 * 41696 <= plan.needed_bytes <= 4 * 41696 + 2 * largest
    assert "llama, 41,696 parameters, 3 layers of width 32, 288 tokens, float32" in str(plan)
    assert plan_checkpoint(whole, dtype="bfloat16").needed_bytes < plan.needed_bytes
    monkeypatch.setattr(weights, "available_bytes", lambda: plan.needed_bytes - 1)
    monkeypatch.setattr(weights, "_numbers", lambda tensor: pytest.fail("a tensor was read"))
    with pytest.raises(Refusal, match=rf"take {plan.needed_bytes:,} bytes and {plan.needed_bytes - 1:,} are free"):
        read_checkpoint(whole)


CONFIG = "config.json: "
HUGE = 10**400  # more than any float
WRONG_CONFIGS = [
    ({"model_type": "mamba"}, CONFIG + "model_type 'mamba' is not known; take a checkpoint of llama, mistral"),
    ({"model_type": "absent"}, CONFIG + "model_type None is not known"),
    ({"model_type": ["llama"]}, CONFIG + "model_type .'llama'. is not known"),
    ({"hidden_act": "relu"}, CONFIG + "the activation 'relu' is not known"),
    ({"hidden_act": ["silu"]}, CONFIG + "the activation .'silu'. is not known"),
    ({"hidden_activation": {}}, CONFIG + "the activation {} is not known"),
    ({"hidden_act": "absent"}, CONFIG + "the activation None is not known"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, CONFIG + "rotary scaling 'yarn' is not known"),
    ({"rope_scaling": {"type": ["linear"]}}, CONFIG + "rotary scaling .'linear'. is not known"),
    ({"rope_scaling": 8}, CONFIG + "the rotary positions 8 are no object"),
    ({"rope_scaling": {"type": "linear"}}, "config.json, rotary positions: factor is missing, not a positive number"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rotary positions: low_freq_factor is missing"),
    ({"rope_parameters": []}, CONFIG + "rope_parameters is .., not an object"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5, not 1"),
    ({"quantization_config": {"bits": 4}}, CONFIG + "the weights are quantized; take"),
    ({"use_bidirectional_attention": True}, CONFIG + "use_bidirectional_attention makes it no model of the next token"),
    ({"hidden_size": "32"}, CONFIG + "hidden_size is '32', not a whole number of 1 to 2147483647; fetch"),
    ({"hidden_size": HUGE}, CONFIG + "hidden_size is 1000.*000, not a whole number of 1 to 2147483647"),
    ({"max_position_embeddings": 10**30}, CONFIG + "max_position_embeddings is 1000.* not a whole number"),
    ({"hidden_size": True}, CONFIG + "hidden_size is True"),
    ({"vocab_size": "absent"}, CONFIG + "vocab_size is missing"),
    ({"num_hidden_layers": 0}, CONFIG + "num_hidden_layers is 0"),
    ({"num_hidden_layers": 10_001}, CONFIG + "num_hidden_layers is 10001, not a whole number of 1 to 10000"),
    ({"rms_norm_eps": -1}, CONFIG + "rms_norm_eps is -1, not a positive number"),
    ({"rms_norm_eps": HUGE}, CONFIG + "rms_norm_eps is 1000.*, not a positive number"),
    ({"rope_theta": HUGE}, "rope_theta is 1000.*, not a positive number"),
    ({"rope_scaling": {"type": "linear", "factor": HUGE}}, "factor is 1000.*, not a positive number"),
    ({"rms_norm_eps": float("nan")}, CONFIG + "rms_norm_eps is nan"),
    ({"rope_theta": float("inf")}, "rope_theta is inf, not a positive number"),
    ({"tie_word_embeddings": 1}, CONFIG + "tie_word_embeddings is 1, not true or false"),
    ({"num_key_value_heads": 3}, CONFIG + "num_key_value_heads is 3, not a divisor of num_attention_heads 4"),
    ({"head_dim": 7}, CONFIG + "head_dim 7 is odd"),
    ({"num_hidden_layers": 4}, "tensor 'layers.3.self_attn.q_proj' is missing, which llama needs"),
    ({"num_hidden_layers": 2}, "tensor 'layers.2.input_layernorm' belongs to no llama"),
    ({"tie_word_embeddings": "absent", "mlp_bias": True}, "tensor 'layers.0.mlp.gate_proj.bias' is missing"),
    ({"intermediate_size": 50}, r"tensor 'layers.0.mlp.gate_proj' is \[48, 32\], not \[50, 32\] as config.json says"),
    ({"model_type": "qwen3", "head_dim": 8}, "tensor 'layers.0.self_attn.q_norm' is missing, which qwen3 needs"),
    ({"eos_token_id": "absent"}, "neither config.json nor tokenizer_config.json names the end of a text"),
    ({"eos_token_id": "absent", "eos_token": "\ud800"}, CONFIG + r"is no JSON .*surrogates not allowed"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG_CONFIGS, ids=[str(changes)[:60] for changes, _ in WRONG_CONFIGS])
def test_a_config_that_is_not_understood_is_refused(changes, words, folder):
    rewrite(folder / "config.json", **changes)
    assert_refused(folder, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types is .'full_attention'., not a list of 3 times"),
        ({"layer_types": ["full_attention"] * 2 + ["chunked_attention"]}, "layer_types is"),
        ({"sliding_window": 0}, "sliding_window is 0, not a whole number of 1"),
        ({"max_window_layers": -1}, "max_window_layers is -1, not a whole number of 0 to"),
    ],
)
def test_windows_that_are_not_understood_are_refused(changes, words):
    with pytest.raises(Refusal, match=CONFIG + words):
        design_of(tiny_config("qwen2") | changes)


def assert_refused(folder: Path, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        plan_checkpoint(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert len(str(refusal.value)) < len(str(folder)) + 300
    assert re.search("; |, take", str(refusal.value)), "there is no remedy"


def test_folders_and_files_that_are_none_are_refused(folder):
    assert_refused(folder / "absent", "is no folder; name one")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(folder, r"pytorch_model.bin: pickled weights are never opened; take the checkpoint as safetensors")
    (folder / "pytorch_model.bin").unlink()
    assert_refused(folder, "holds neither model.safetensors nor model.safetensors.index.json; fetch")
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95 no header")
    assert_refused(folder, "model.safetensors: is no whole safetensors file")
    (folder / "config.json").write_text("{'model_type'}")
    assert_refused(folder, "config.json: is no JSON")
    (folder / "config.json").write_text("[1]")
    assert_refused(folder, "config.json: is no JSON object")
    (folder / "config.json").write_bytes(b"\xff\xfe")
    assert_refused(folder, "config.json: is no JSON")
    (folder / "config.json").unlink()
    assert_refused(folder, "config.json: cannot be read")
    with pytest.raises(Refusal, match="weights cannot be 'float16'; take float32 or bfloat16"):
        plan_checkpoint(folder, dtype="float16")


def test_a_file_that_was_cut_off_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert_refused(folder, "model.safetensors: is no whole safetensors file")


def test_one_tensor_under_two_names_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, {**tensors, "norm.weight": tensors["model.norm.weight"]})
    assert_refused(folder, "tensor 'norm.weight' is 'norm' for the second time; fetch")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(wrong, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = wrong
    write_weights(folder, tensors)
    with pytest.raises(Refusal, match=r"model.layers.1.mlp.up_proj.weight' has numbers that are not finite; fetch"):
        read_checkpoint(folder)


def test_whole_numbers_are_refused_as_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": np.ones(32, np.int8)}, folder / "model.safetensors")
    assert_refused(folder, "tensor 'model.norm.weight' is of type I8, perhaps quantized; take")


@pytest.mark.parametrize("place", ["../model.safetensors", "/model.safetensors", "..", "a\nb", "a\0b", "", 5])
def test_an_index_that_leads_out_of_the_folder_is_refused(place, folder):
    index = {"weight_map": {"model.norm.weight": place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(folder, "model.safetensors.index.json: weight_map does not name a file of the folder")


def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "shards", "llama", shards=2)
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    first = "model.embed_tokens.weight"
    rewrite(index, weight_map=names | {first: "model-00002-of-00002.safetensors"})
    assert_refused(folder, f"'{first}' is not in it, as model.safetensors.index.json says")
    rewrite(index, weight_map={name: place for name, place in names.items() if name != first})
    assert_refused(folder, "tensor 'embed_tokens' is missing")
    rewrite(index, weight_map=names | {first: "model-00003-of-00003.safetensors"})
    assert_refused(folder, "model-00003-of-00003.safetensors: is no whole safetensors file")


def test_every_family_can_be_planned(tmp_path):
    for place, family in enumerate(CONFIGS):
        plan = plan_checkpoint(tiny_checkpoint(tmp_path / str(place), family))
        assert plan.design.family == family.split(",")[0]

"""Tiny checkpoints with random weights, in the files in which real ones come; and their tokenizers.

Everything follows from the family and the seed: `golden/make_golden.py` makes the same folders for the reference
implementation. Needs no more than NumPy, safetensors and tokenizers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

GOLDEN_SEED = 6
GOLDEN_TOKENS = np.random.default_rng(GOLDEN_SEED).integers(0, 288, 40).astype(np.int32)
GOLDEN_COLUMNS = np.arange(0, 288, 8)  # token ids whose logits are kept

_SIZES = {
    "vocab_size": 288,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 12, "rms_norm_eps": 1e-6}

# What config.json says of each, beside the sizes; in the spelling of the checkpoints that are around.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "tie_word_embeddings": False,
    },
    "llama, linear": {
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_theta": 5000.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "mistral": {
        "model_type": "mistral",
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "sliding_window": 7,
        "head_dim": 12,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rope_theta": 1000000.0,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},  # as newer files write it
        "head_dim": 12,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 3,
        "tie_word_embeddings": False,
    },
    "gemma": {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "rope_theta": 10000.0, **_GEMMA},
    "gemma2": {
        "model_type": "gemma2",
        "rope_theta": 10000.0,
        "sliding_window": 6,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        **_GEMMA,
    },
    "gemma3_text": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "sliding_window": 5,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 20,
        **_GEMMA,
    },
}


def tiny_config(family: str, **changes: Any) -> dict[str, Any]:
    """What config.json holds; a change to None takes the entry out."""
    merged = {**_SIZES, **CONFIGS[family], **changes}
    return {name: value for name, value in merged.items() if value is not None or name == "sliding_window"}


def tiny_weights(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Random float32 tensors with the names and shapes of the family, each [out, in], so large that details matter."""
    family, rng = config["model_type"], np.random.default_rng(seed)
    gemma, hidden, middle = family.startswith("gemma"), config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def linear(out: int, into: int) -> np.ndarray:
        return rng.normal(0, 1.5 / np.sqrt(into), (out, into))

    def norm(size: int) -> np.ndarray:
        return rng.normal(0 if gemma else 1, 0.3, size)

    tensors = {"model.embed_tokens.weight": linear(config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        maps = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (middle, hidden),
            "mlp.up_proj": (middle, hidden),
            "mlp.down_proj": (hidden, middle),
        }
        for name, shape in maps.items():
            tensors[f"{at}{name}.weight"] = linear(*shape)
            attention = name.startswith("self_attn")
            biased = config.get("attention_bias") if attention else config.get("mlp_bias")
            if biased or (family == "qwen2" and attention and "o_proj" not in name):
                tensors[f"{at}{name}.bias"] = rng.normal(0, 0.5, shape[0])
        tensors[f"{at}input_layernorm.weight"] = norm(hidden)
        tensors[f"{at}post_attention_layernorm.weight"] = norm(hidden)
        if family in ("gemma2", "gemma3_text"):
            tensors[f"{at}pre_feedforward_layernorm.weight"] = norm(hidden)
            tensors[f"{at}post_feedforward_layernorm.weight"] = norm(hidden)
        if family in ("qwen3", "gemma3_text"):
            tensors[f"{at}self_attn.q_norm.weight"] = norm(head)
            tensors[f"{at}self_attn.k_norm.weight"] = norm(head)
    tensors["model.norm.weight"] = norm(hidden)
    if not config.get("tie_word_embeddings", gemma):
        tensors["lm_head.weight"] = linear(config["vocab_size"], hidden)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def tiny_checkpoint(
    folder: Path, family: str, seed: int = GOLDEN_SEED, *, shards: int = 1, tokenizer: str = "bytes", **changes: Any
) -> Path:
    """Write a checkpoint into a new folder: config.json, tokenizer.json, and the weights in so many files."""
    folder.mkdir(parents=True)
    config = tiny_config(family, **changes)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    TOKENIZERS[tokenizer]().save(str(folder / "tokenizer.json"))
    write_weights(folder, tiny_weights(config, seed), shards)
    return folder


def write_weights(folder: Path, tensors: Mapping[str, np.ndarray], shards: int = 1) -> None:
    """The tensors in one file, or in several with an index."""
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
        return
    where = {name: f"model-{place % shards + 1:05}-of-{shards:05}.safetensors" for place, name in enumerate(tensors)}
    for file in sorted(set(where.values())):
        save_file({name: tensors[name] for name in tensors if where[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def byte_tokenizer() -> Tokenizer:
    """Byte-level BPE as Llama 3 and Qwen have it, with a few merges; it begins each text with <begin>."""
    merges = [("t", "h"), ("Ġ", "t"), ("Ġt", "h"), ("e", "r"), ("a", "n"), ("Ġ", "P"), ("i", "s"), ("Ċ", "A")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<begin>", "<end>"]
    words = [*alphabet, *specials, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A", pair="<begin> $A $B", special_tokens=[("<begin>", 256)]
    )
    return tokenizer


def piece_tokenizer() -> Tokenizer:
    """BPE with byte fallback, as tokenizers of Llama 2, Mistral and Gemma are: a space is a ▁ before a word."""
    letters = "▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:?"
    merges = [("▁", "t"), ("▁t", "h"), ("P", "a"), ("▁", "Pa"), ("i", "s"), ("▁Pa", "r")]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*pieces, *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE(
            {word: number for number, word in enumerate(words)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in pieces[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def split_byte_tokenizer() -> Tokenizer:
    """The same in the way of newer files: a regular expression cuts the text, and Unicode is composed first (NFC)."""
    tokenizer = byte_tokenizer()
    contractions, words, numbers = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}"
    marks, lines, spaces = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)|\s+"
    cut = Regex("|".join([contractions, words, numbers, marks, lines, spaces]))
    tokenizer.normalizer = normalizers.NFC()
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(cut, "isolated"), spell])
    return tokenizer


def spaced_piece_tokenizer() -> Tokenizer:
    """Pieces in the way of Gemma: a space is a ▁, and no text gets one at its start."""
    tokenizer = piece_tokenizer()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def marked_piece_tokenizer() -> Tokenizer:
    """Pieces in the way of newer files of Llama 2: a pre-tokenizer puts the first ▁ and turns spaces into others."""
    tokenizer = piece_tokenizer()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "split bytes": split_byte_tokenizer,
    "pieces": piece_tokenizer,
    "spaced pieces": spaced_piece_tokenizer,
    "marked pieces": marked_piece_tokenizer,
}

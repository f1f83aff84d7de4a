"""What config.json says about a decoder: sizes, positions, windows, norms. Nothing is guessed.

One decoder with options covers the families. The defaults for absent entries are those of the reference implementation,
transformers. An entry whose meaning is not known here is refused, since the network would be silently another one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from theory.console import Refusal

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu, tanh",
    "gelu_pytorch_tanh": "gelu, tanh",
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_ATTENTION_MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP_MAPS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (arXiv 2104.09864): pair j of a head turns by position * frequency j.

    Longer contexts than those of the first training: "linear" divides every frequency by the factor; "llama3" divides
    those that turn less than `slow` times within the original context, keeps those that turn more than `fast` times,
    and blends between.
    """

    base: float
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    slow: float = 1.0
    fast: float = 4.0
    original_context: int = 0

    def frequencies(self, head: int) -> Float64[np.ndarray, " pairs"]:
        """Radians per token for each of the head / 2 pairs.

        >>> Rotary(10000.0, "linear", factor=2.0).frequencies(4).tolist()
        [0.5, 0.005]
        """
        plain = self.base ** -(np.arange(0, head, 2) / head)
        if self.kind != "llama3":
            return plain / self.factor
        turns = self.original_context * plain / (2 * math.pi)
        kept = np.clip((turns - self.slow) / (self.fast - self.slow), 0, 1)
        return kept * plain + (1 - kept) * plain / self.factor


@dataclass(frozen=True)
class LayerDesign:
    """What may differ from layer to layer."""

    rotary: Rotary
    window: int | None  # tokens that a token sees, itself included; None: all before it


@dataclass(frozen=True)
class Design:
    """A decoder without its weights."""

    family: str
    vocabulary: int
    width: int
    middle: int  # width of the MLP
    heads: int  # of queries
    key_heads: int  # of keys and values; each serves heads / key_heads query heads
    head: int  # numbers per head
    context: int
    layers: tuple[LayerDesign, ...]
    epsilon: float  # of the norms
    activation: str  # one of "silu", "gelu", "gelu, tanh"
    biased: tuple[str, ...]  # linear maps with a bias
    tied: bool  # the unembedding is the embedding
    score_divisor: float  # of query times key
    score_cap: float | None  # scores become cap * tanh(score / cap)
    logit_cap: float | None
    gemma: bool  # norms multiply by 1 + weight, embeddings are scaled by the root of the width
    norms_after: bool  # of what attention and MLP give, before it is added
    head_norms: bool  # of each query and key

    def kernels(self) -> dict[str, tuple[int, int]]:
        """The linear maps of attention and MLP: name -> (in, out)."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        maps = {
            "self_attn.q_proj": (self.width, queries),
            "self_attn.k_proj": (self.width, keys),
            "self_attn.v_proj": (self.width, keys),
            "self_attn.o_proj": (queries, self.width),
            "mlp.gate_proj": (self.width, self.middle),
            "mlp.up_proj": (self.width, self.middle),
            "mlp.down_proj": (self.middle, self.width),
        }
        return {f"layers.{layer}.{name}": sizes for layer in range(len(self.layers)) for name, sizes in maps.items()}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the network needs, and its shape in the file; linear maps are (out, in) there."""
        shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (self.vocabulary, self.width), "norm": (self.width,)}
        if not self.tied:
            shapes["lm_head"] = (self.vocabulary, self.width)
        for name, (inputs, outputs) in self.kernels().items():
            shapes[name] = (outputs, inputs)
            if name.split(".", 2)[2] in self.biased:
                shapes[f"{name}.bias"] = (outputs,)
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if self.norms_after else []
        for layer in range(len(self.layers)):
            shapes |= {f"layers.{layer}.{norm}": (self.width,) for norm in norms}
            if self.head_norms:
                shapes |= {f"layers.{layer}.self_attn.{side}_norm": (self.head,) for side in "qk"}
        return shapes

    @property
    def parameters(self) -> int:
        """Numbers of the whole network."""
        return sum(math.prod(shape) for shape in self.tensors().values())


def read_design(file: Path) -> Design:
    """The decoder that a config.json describes; raises Refusal, naming the entry, for what is not understood."""
    return design_of(read_object(file), str(file))


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file; raises Refusal if it is missing or is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{file}: cannot be read ({error.strerror}); a checkpoint needs it") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{file}: is no JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(found, dict):
        raise Refusal(f"{file}: is no JSON object; fetch the checkpoint again")
    return found


def design_of(config: Mapping[str, Any], source: str = "config.json") -> Design:
    """The same from what the file holds."""
    entries = _Entries(config, source)
    family = config.get("model_type")
    if family not in FAMILIES:
        raise Refusal(f"{source}: model_type {family!r} is not known; known are {', '.join(FAMILIES)}")
    if config.get("quantization_config") is not None:
        raise Refusal(f"{source}: the weights are quantized; take the checkpoint in bfloat16 or float32")
    if config.get("use_bidirectional_attention"):
        raise Refusal(f"{source}: use_bidirectional_attention makes it no model of the next token; take another")
    gemma = family.startswith("gemma")
    newer_gemma = family in ("gemma2", "gemma3_text")
    width, heads = entries.size("hidden_size"), entries.size("num_attention_heads")
    usual_head = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}.get(family)
    if config.get("head_dim", usual_head) is None and width % heads:
        raise Refusal(f"{source}: hidden_size {width} is no multiple of num_attention_heads {heads}; say head_dim")
    head, key_heads = entries.size("head_dim", usual_head or width // heads), entries.size("num_key_value_heads", heads)
    if heads % key_heads:
        raise Refusal(f"{source}: num_attention_heads {heads} is no multiple of num_key_value_heads {key_heads}")
    if head % 2:
        raise Refusal(f"{source}: head_dim {head} is odd, and rotary positions turn pairs")
    biased = _ATTENTION_MAPS[:3] if family == "qwen2" else ()
    if family not in ("qwen2", "mistral") and entries.flag("attention_bias", False):
        biased = _ATTENTION_MAPS
    if family == "llama" and entries.flag("mlp_bias", False):
        biased += _MLP_MAPS
    divisor = entries.number("query_pre_attn_scalar", 256.0) if newer_gemma else float(head)
    return Design(
        family=family,
        vocabulary=entries.size("vocab_size"),
        width=width,
        middle=entries.size("intermediate_size"),
        heads=heads,
        key_heads=key_heads,
        head=head,
        context=entries.size("max_position_embeddings"),
        layers=_layers(entries, family),
        epsilon=entries.number("rms_norm_eps"),
        activation=_activation(entries, gemma),
        biased=biased,
        tied=entries.flag("tie_word_embeddings", gemma),
        score_divisor=math.sqrt(divisor),
        score_cap=entries.optional("attn_logit_softcapping", 50.0 if family == "gemma2" else None, newer_gemma),
        logit_cap=entries.optional("final_logit_softcapping", 30.0 if family == "gemma2" else None, newer_gemma),
        gemma=gemma,
        norms_after=newer_gemma,
        head_norms=family in ("qwen3", "gemma3_text"),
    )


@dataclass(frozen=True)
class _Entries:
    """Entries of a JSON object, each of the type that is asked for."""

    values: Mapping[str, Any]
    source: str

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number; the default, if there is one, where the entry is null or absent."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or value < 1:
            raise self.refusal(name, "a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite number."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.refusal(name, "a positive number")
        return float(value)

    def optional(self, name: str, default: float | None, used: bool) -> float | None:
        """A positive number or null, for a family that uses it; the default where it is absent."""
        if not used:
            return None
        if name not in self.values:
            return default
        return None if self.values[name] is None else self.number(name)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.refusal(name, "true or false")
        return value

    def refusal(self, name: str, wanted: str) -> Refusal:
        """The entry is not what it has to be."""
        found = f"is {self.values[name]!r}" if name in self.values else "is missing"
        return Refusal(f"{self.source}: {name} {found}, not {wanted}; fetch the file again")


def _activation(entries: _Entries, gemma: bool) -> str:
    name = entries.values.get("hidden_activation") or entries.values.get("hidden_act") or (gemma and "gelu")
    if name not in _ACTIVATIONS:
        raise Refusal(f"{entries.source}: the activation {name!r} is not known; known are {', '.join(_ACTIVATIONS)}")
    # The first files of Gemma say "gelu"; the model was trained with the approximation.
    return "gelu, tanh" if gemma and name == "gelu" else _ACTIVATIONS[name]


def _layers(entries: _Entries, family: str) -> tuple[LayerDesign, ...]:
    windows, rotary = _windows(entries, family), _rotaries(entries, family)
    return tuple(LayerDesign(rotary[_FULL if window is None else _SLIDING], window) for window in windows)


def _windows(entries: _Entries, family: str) -> list[int | None]:
    count, listed = entries.size("num_hidden_layers"), entries.values.get("layer_types")
    if listed is None or family in ("llama", "gemma", "mistral"):
        pattern = entries.size("sliding_window_pattern", 6)
        from_layer = entries.values.get("max_window_layers", 28)
        slides = {
            "mistral": lambda layer: True,
            "qwen2": lambda layer: layer >= from_layer,
            "qwen3": lambda layer: layer >= from_layer,
            "gemma2": lambda layer: layer % 2 == 0,
            "gemma3_text": lambda layer: (layer + 1) % pattern != 0,
        }.get(family, lambda layer: False)
        if type(from_layer) is not int:
            raise entries.refusal("max_window_layers", "a whole number")
        listed = [_SLIDING if slides(layer) else _FULL for layer in range(count)]
    if not isinstance(listed, list) or len(listed) != count or not set(map(str, listed)) <= {_FULL, _SLIDING}:
        raise entries.refusal("layer_types", f"a list of {count} times {_FULL!r} or {_SLIDING!r}")
    unused = family.startswith("qwen") and not entries.flag("use_sliding_window", False)
    if unused or _SLIDING not in listed or (family == "mistral" and entries.values.get("sliding_window", 0) is None):
        return [None] * count
    window = entries.size("sliding_window", 4096)
    return [window if kind == _SLIDING else None for kind in listed]


def _rotaries(entries: _Entries, family: str) -> dict[str, Rotary]:
    """For full attention and for windows; Gemma 3 has other positions in its windows."""
    newer = entries.values.get("rope_parameters")
    if newer is not None and not isinstance(newer, dict):
        raise entries.refusal("rope_parameters", "an object")
    if newer is not None and _FULL in newer:
        return {kind: _rotary(entries, newer.get(kind), None) for kind in (_FULL, _SLIDING)}
    base = entries.number("rope_theta", 1e6 if family == "gemma3_text" else 1e4)
    everywhere = _rotary(entries, entries.values.get("rope_scaling") if newer is None else newer, base)
    if family != "gemma3_text":
        return {_FULL: everywhere, _SLIDING: everywhere}
    return {_FULL: everywhere, _SLIDING: Rotary(entries.number("rope_local_base_freq", 1e4))}


def _rotary(entries: _Entries, scaling: Any, base: float | None) -> Rotary:
    if scaling is None and base is not None:
        return Rotary(base)
    if not isinstance(scaling, dict):
        raise Refusal(f"{entries.source}: the rotary positions {scaling!r} are no object; fetch the file again")
    inner = _Entries(scaling, f"{entries.source}, rotary positions")
    base = inner.number("rope_theta", base)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if scaling.get("partial_rotary_factor", 1) != 1:
        raise inner.refusal("partial_rotary_factor", "1, which alone is known")
    if kind == "default":
        return Rotary(base)
    if kind == "linear":
        return Rotary(base, "linear", inner.number("factor"))
    if kind == "llama3":
        slow, fast = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        if slow >= fast:
            raise inner.refusal("low_freq_factor", f"less than high_freq_factor {fast}")
        original = inner.size("original_max_position_embeddings")
        return Rotary(base, "llama3", inner.number("factor"), slow, fast, original)
    raise Refusal(f"{entries.source}: rotary scaling {kind!r} is not known; known are default, linear and llama3")

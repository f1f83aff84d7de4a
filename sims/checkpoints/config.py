"""What config.json says about a decoder. Nothing is guessed.

Entries and their defaults are those of the reference implementation, transformers, in the spelling of its files before
and since version 5. A value that is not known here is refused, since the network would silently be another one.
"""

import json
import math
import re
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.checkpoints.design import ATTENTION_MAPS, MLP_MAPS, Design, LayerDesign, Rotary
from theory.console import Refusal

# What an entry means that a file leaves out: for every family, and for some.
_USUAL: dict[str, Any] = {"rope_theta": 1e4, "tie_word_embeddings": False, "sliding_window": 4096}
_GEMMA = {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "mlp_bias": False},
    "mistral": {},
    "qwen2": {"use_sliding_window": False, "max_window_layers": 28},
    "qwen3": {"use_sliding_window": False, "max_window_layers": 28, "head_dim": 128},
    "gemma": _GEMMA,
    "gemma2": {
        **_GEMMA,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_GEMMA,
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window_pattern": 6,
    },
}
_WITH_IMAGES = {"gemma3": "gemma3_text"}  # whose text_config describes the decoder
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu, tanh",
    "gelu_pytorch_tanh": "gelu, tanh",
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_MOST, _MOST_LAYERS = 2**31 - 1, 10_000  # beyond any network, and within what can be computed with
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_design(file: Path) -> Design:
    """The decoder that a config.json describes; raises Refusal, naming the entry, for what is not understood."""
    return design_of(read_object(file), str(file))


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file; raises Refusal if it is missing or is none."""
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # raises for half of a pair, which is no character
    except OSError as error:
        raise Refusal(f"{file}: cannot be read ({error.strerror}); a checkpoint needs it") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{file}: is no JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(found, dict):
        raise Refusal(f"{file}: is no JSON object; fetch the checkpoint again")
    return found


def design_of(config: Mapping[str, Any], source: str = "config.json") -> Design:
    """The same from what the file holds."""
    family = config.get("model_type")
    inner = config.get("text_config")
    if isinstance(family, str) and family in _WITH_IMAGES and isinstance(inner, dict):
        config, family = {"quantization_config": config.get("quantization_config"), **inner}, _WITH_IMAGES[family]
    if not isinstance(family, str) or family not in _FAMILIES:
        known = ", ".join([*_FAMILIES, *_WITH_IMAGES])
        raise Refusal(f"{source}: model_type {family!r} is not known; take a checkpoint of {known}")
    if config.get("quantization_config") is not None:
        raise Refusal(f"{source}: the weights are quantized; take the checkpoint in bfloat16 or float32")
    if config.get("use_bidirectional_attention"):
        raise Refusal(f"{source}: use_bidirectional_attention makes it no model of the next token; take another")
    entries = _Entries({**_USUAL, **_FAMILIES[family], **config}, source)
    gemma, newer_gemma = family.startswith("gemma"), family in ("gemma2", "gemma3_text")
    width, heads = entries.size("hidden_size"), entries.size("num_attention_heads")
    key_heads = entries.size("num_key_value_heads", heads)
    head = entries.size("head_dim", width // heads)
    if heads % key_heads:
        raise entries.refusal("num_key_value_heads", f"a divisor of num_attention_heads {heads}")
    if head % 2:
        raise Refusal(f"{source}: head_dim {head} is odd, and rotary positions turn pairs; fetch the file again")
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
        biased=_biased(entries, family),
        tied=entries.flag("tie_word_embeddings"),
        score_divisor=math.sqrt(entries.number("query_pre_attn_scalar") if newer_gemma else head),
        score_cap=entries.number_or_none("attn_logit_softcapping") if newer_gemma else None,
        logit_cap=entries.number_or_none("final_logit_softcapping") if newer_gemma else None,
        gemma=gemma,
        norms_after=newer_gemma,
        head_norms=family in ("qwen3", "gemma3_text"),
    )


@dataclass(frozen=True)
class _Entries:
    """Entries of a JSON object, each of the type that is asked for."""

    values: Mapping[str, Any]
    source: str

    def size(self, name: str, default: int | None = None, *, least: int = 1, most: int = _MOST) -> int:
        """A whole number, `least` to `most`; the default, if there is one, where the entry is null or absent."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise self.refusal(name, f"a whole number of {least} to {most}")
        return value

    def number(self, name: str) -> float:
        """A positive finite number."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
            raise self.refusal(name, "a positive number")
        return float(value)

    def number_or_none(self, name: str) -> float | None:
        """A positive finite number, or null."""
        return None if self.values.get(name) is None else self.number(name)

    def flag(self, name: str) -> bool:
        """True or false; false where the entry is null or absent."""
        value = self.values.get(name)
        if value is not None and type(value) is not bool:
            raise self.refusal(name, "true or false")
        return value is True

    def refusal(self, name: str, wanted: str) -> Refusal:
        """The entry is not what it has to be."""
        found = f"is {reprlib.repr(self.values[name])}" if name in self.values else "is missing"
        return Refusal(f"{self.source}: {name} {found}, not {wanted}; fetch the file again")


def _biased(entries: _Entries, family: str) -> tuple[str, ...]:
    if family == "qwen2":
        return ATTENTION_MAPS[:3]
    # Mistral has no such entry: a bias in its files is a tensor too many.
    biased = ATTENTION_MAPS if family != "mistral" and entries.flag("attention_bias") else ()
    return biased + (MLP_MAPS if family == "llama" and entries.flag("mlp_bias") else ())


def _activation(entries: _Entries, gemma: bool) -> str:
    name = entries.values.get("hidden_activation")
    if name is None:
        name = entries.values.get("hidden_act")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise Refusal(f"{entries.source}: the activation {name!r} is not known; take a checkpoint with one of {known}")
    # The first files of Gemma say "gelu"; the model was trained with the approximation.
    return "gelu, tanh" if gemma and name == "gelu" else _ACTIVATIONS[name]


def _layers(entries: _Entries, family: str) -> tuple[LayerDesign, ...]:
    windows, rotary = _windows(entries, family), _rotaries(entries, family)
    return tuple(LayerDesign(rotary[_FULL if window is None else _SLIDING], window) for window in windows)


def _windows(entries: _Entries, family: str) -> list[int | None]:
    """Of each layer: as listed in newer files, else by the rule of the family."""
    count, listed = entries.size("num_hidden_layers", most=_MOST_LAYERS), entries.values.get("layer_types")
    if listed is None or family in ("llama", "mistral", "gemma"):
        listed = [_SLIDING if _slides(entries, family, layer) else _FULL for layer in range(count)]
    if not isinstance(listed, list) or len(listed) != count or not set(map(str, listed)) <= {_FULL, _SLIDING}:
        raise entries.refusal("layer_types", f"a list of {count} times {_FULL!r} or {_SLIDING!r}")
    unused = family.startswith("qwen") and not entries.flag("use_sliding_window")
    if unused or _SLIDING not in listed:
        return [None] * count
    window = entries.size("sliding_window")
    return [window if kind == _SLIDING else None for kind in listed]


def _slides(entries: _Entries, family: str, layer: int) -> bool:
    if family == "mistral":
        return entries.values["sliding_window"] is not None
    if family.startswith("qwen"):
        return layer >= entries.size("max_window_layers", least=0)
    if family == "gemma2":
        return layer % 2 == 0
    return family == "gemma3_text" and (layer + 1) % entries.size("sliding_window_pattern") != 0


def _rotaries(entries: _Entries, family: str) -> dict[str, Rotary]:
    """For full attention and for windows; Gemma 3 has other positions in its windows."""
    newer, older = entries.values.get("rope_parameters"), entries.values.get("rope_scaling")
    if newer is None:
        return _for_each_kind(entries, family, _rotary(entries, older))
    found = _newer_rotaries(entries, family, newer)
    if older is not None and found != _for_each_kind(entries, family, _rotary(entries, older)):
        raise Refusal(f"{entries.source}: rope_parameters and rope_scaling differ; keep the one that is meant")
    return found


def _newer_rotaries(entries: _Entries, family: str, newer: Any) -> dict[str, Rotary]:
    if not isinstance(newer, dict):
        raise entries.refusal("rope_parameters", "an object")
    kinds = {_FULL, _SLIDING}
    if not kinds & newer.keys():
        return _for_each_kind(entries, family, _rotary(entries, newer))
    if newer.keys() != kinds or not all(isinstance(of, dict) and "rope_theta" in of for of in newer.values()):
        raise entries.refusal("rope_parameters", f"an object with a rope_theta for {_FULL} and one for {_SLIDING}")
    return {kind: _rotary(entries, newer[kind]) for kind in (_FULL, _SLIDING)}


def _for_each_kind(entries: _Entries, family: str, everywhere: Rotary) -> dict[str, Rotary]:
    local = Rotary(entries.number("rope_local_base_freq")) if family == "gemma3_text" else everywhere
    return {_FULL: everywhere, _SLIDING: local}


def _rotary(entries: _Entries, scaling: Any) -> Rotary:
    """What `rope_scaling` of older and `rope_parameters` of newer files say; the older have the base beside it."""
    if scaling is None:
        return Rotary(entries.number("rope_theta"))
    if not isinstance(scaling, dict):
        raise Refusal(f"{entries.source}: the rotary positions {scaling!r} are no object; fetch the file again")
    inner = _Entries({"rope_theta": entries.values["rope_theta"], **scaling}, f"{entries.source}, rotary positions")
    base, kind = inner.number("rope_theta"), scaling.get("rope_type", scaling.get("type", "default"))
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
    raise Refusal(
        f"{entries.source}: rotary scaling {kind!r} is not known; take a checkpoint with default, linear or llama3"
    )

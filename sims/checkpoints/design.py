"""A decoder without its weights: sizes, positions, windows, norms. One decoder with options covers the families.

Letters: T tokens of a sequence, W width of a state, D numbers per head.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

ATTENTION_MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP_MAPS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


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

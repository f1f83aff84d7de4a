"""A folder with config.json, safetensors files and tokenizer.json, read as a backbone with its vocabulary.

Nothing is fetched and nothing is executed. What is not understood is refused, as a network that is nearly right would
be a wrong baseline.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sims.checkpoints.config import read_design
from sims.checkpoints.decoder import CheckpointBackbone
from sims.checkpoints.design import Design
from sims.checkpoints.template import TEMPLATE
from sims.checkpoints.vocabulary import CheckpointVocabulary, read_vocabulary
from sims.checkpoints.weights import StoredTensor, find_tensors, planned_bytes, read_tensors, refuse_beyond_memory
from theory.console import Refusal


@dataclass(frozen=True)
class CheckpointPlan:
    """What reading would do: all files but the weights' numbers have been read and checked."""

    folder: Path
    dtype: Literal["float32", "bfloat16"]
    design: Design
    vocabulary: CheckpointVocabulary
    tensors: dict[str, StoredTensor]

    @property
    def needed_bytes(self) -> int:
        """Memory that reading takes, at its highest."""
        return planned_bytes(self.tensors, self.dtype)

    def __str__(self) -> str:
        design = self.design
        return (
            f"{self.folder.name}: {design.family}, {design.parameters:,} parameters, {len(design.layers)} layers of "
            f"width {design.width}, {design.vocabulary:,} tokens, {self.dtype}: {self.needed_bytes:,} bytes to read it"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained network with its vocabulary."""

    backbone: CheckpointBackbone
    vocabulary: CheckpointVocabulary
    fingerprint: str  # SHA-256 of what its numbers follow from: weights and type, config.json, tokenizer, template

    @property
    def family(self) -> str:
        """The model_type of config.json."""
        return self.backbone.design.family


def plan_checkpoint(
    folder: Path, *, dtype: Literal["float32", "bfloat16"] = "float32", template: str = TEMPLATE
) -> CheckpointPlan:
    """Check a folder and say what reading it takes; raises Refusal, naming file and remedy, for what cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise Refusal(f"{folder}: is no folder; name one with config.json, safetensors files and tokenizer.json")
    if dtype not in ("float32", "bfloat16"):
        raise Refusal(f"weights cannot be {dtype!r}; take float32 or bfloat16")
    design = read_design(folder / "config.json")
    tensors = find_tensors(folder, design)
    return CheckpointPlan(folder, dtype, design, read_vocabulary(folder, design.vocabulary, template), tensors)


def read_checkpoint(
    folder: Path, *, dtype: Literal["float32", "bfloat16"] = "float32", template: str = TEMPLATE
) -> Checkpoint:
    """Read the folder; raises Refusal, before anything large is allocated, if it cannot be read or does not fit."""
    return read_planned(plan_checkpoint(folder, dtype=dtype, template=template))


def read_planned(plan: CheckpointPlan) -> Checkpoint:
    """Read what was planned."""
    refuse_beyond_memory(plan.folder, plan.needed_bytes)
    weights, digest = read_tensors(plan.tensors, plan.dtype)
    config = hashlib.sha256((plan.folder / "config.json").read_bytes()).hexdigest()
    told = [plan.dtype, config, plan.vocabulary.identity, digest]
    fingerprint = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return Checkpoint(CheckpointBackbone(weights, plan.design), plan.vocabulary, fingerprint)

"""The frozen model of a memory: a byte transformer of its own, or a checkpoint that lies elsewhere.

Weights of a checkpoint are not copied. The memory's header states the folder as it was given and what the model in it
is, fingerprint and number format included; who opens the memory is refused if another one lies there now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from mome_jax.saving import load
from sims.checkpoints.template import TEMPLATE
from sims.memory.backbone import CachedBackbone
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.files import refusals
from sims.memory.folder import Dtype, Folder
from sims.tokens import BYTES, Vocabulary
from theory.console import Refusal

_STATED = ("family", "fingerprint", "dtype")


@dataclass(frozen=True, eq=False)
class Model:
    """A frozen model with its vocabulary, and where it comes from."""

    backbone: CachedBackbone
    vocabulary: Vocabulary
    path: Path  # the file of a byte backbone, the folder of a checkpoint
    checkpoint: Mapping[str, str] | None = None  # what is stated of a checkpoint; None: a byte backbone

    def __str__(self) -> str:
        if self.checkpoint is None:
            return str(self.path)
        return f"{self.path} ({self.checkpoint['family']}, {self.checkpoint['dtype']})"


def load_backbone(folder: Folder) -> ByteBackbone:
    """The byte transformer in a folder; raises Refusal if its file cannot be used."""
    with refusals():
        arrays, header = load(folder.backbone)
    return ByteBackbone.from_arrays(arrays, header, str(folder.backbone))


def byte_model(folder: Folder) -> Model:
    """The byte transformer in a folder, with its vocabulary."""
    return Model(load_backbone(folder), BYTES, folder.backbone)


def checkpoint_model(path: Path, dtype: Dtype, template: str = TEMPLATE) -> Model:
    """The Llama-, Mistral-, Qwen- or Gemma-family checkpoint in a folder; raises Refusal if it cannot be read."""
    from sims.checkpoints.checkpoint import read_checkpoint  # only who has one needs what it takes to read it

    read = read_checkpoint(path, dtype=dtype, template=template)
    return Model(read.backbone, read.vocabulary, path, _stated(read.family, read.fingerprint, dtype, template))


def sizes_of_checkpoint(path: Path, dtype: Dtype, template: str = TEMPLATE) -> Model:
    """The checkpoint in a folder with its sizes and vocabulary, but without its weights, and so no fingerprint."""
    from sims.checkpoints.checkpoint import plan_checkpoint
    from sims.checkpoints.decoder import CheckpointBackbone

    plan = plan_checkpoint(path, dtype=dtype, template=template)
    stated = _stated(plan.design.family, "", dtype, template)
    return Model(CheckpointBackbone({}, plan.design), plan.vocabulary, path, stated)


def given_model(
    path: Path, dtype: Dtype | None = None, template: str | None = None, *, only_sizes: bool = False
) -> Model:
    """The model in a folder that a user names: a checkpoint, float32 unless told, or that of another memory.

    `template` is the text around {question} that a checkpoint reads; None: the usual one. With `only_sizes` the weights
    of a checkpoint are not read.
    """
    if (path / "config.json").is_file():
        text = TEMPLATE if template is None else template
        return (sizes_of_checkpoint if only_sizes else checkpoint_model)(path, dtype or "float32", text)
    for flag, value in ((f"--dtype {dtype}", dtype), ("--template", template)):
        if value is not None:
            raise Refusal(f"{flag}: {path} is no checkpoint (it has no config.json); leave it out")
    folder = Folder(path)
    if folder.exists():
        return model_of(folder)
    if not folder.backbone.is_file():
        raise Refusal(f"--backbone {path}: is neither a checkpoint (no config.json) nor a memory; name such a folder")
    return byte_model(folder)


def model_of(folder: Folder) -> Model:
    """The model of a memory; raises Refusal if it is gone or another one lies in its place."""
    header = folder.read_header()
    stated = header.get("checkpoint")
    if stated is None:
        if folder.moved_checkpoint is not None:
            raise Refusal(f"--backbone {folder.moved_checkpoint}: the memory has a model of its own; leave it out")
        return byte_model(folder)
    place = header.get("checkpoint_folder")
    if not (isinstance(stated, dict) and all(isinstance(stated.get(name), str) for name in _STATED) and place) or not (
        stated["dtype"] in get_args(Dtype) and isinstance(stated.get("template", ""), str)
    ):
        raise Refusal(f"{folder.path}: what its header says of its checkpoint is damaged; restore it from a copy")
    path = folder.moved_checkpoint or Path(str(place))
    if not path.is_dir():
        raise Refusal(f"{path}: the checkpoint of {folder.path} is not there; say where it is with --backbone FOLDER")
    model = checkpoint_model(path, stated["dtype"], stated.get("template", TEMPLATE))
    if model.checkpoint != stated:
        raise Refusal(
            f"{path}: is not the checkpoint beside which {folder.path} was made (its fingerprint was "
            f"{stated['fingerprint'][:12]}...); say where that is with --backbone FOLDER"
        )
    return model


def identity_of(model: Model | None) -> dict[str, Any]:
    """What a memory's header states of its model, and no other model has."""
    return {"checkpoint": None if model is None or model.checkpoint is None else dict(model.checkpoint)}


def place_of(model: Model) -> dict[str, Any]:
    """Where the header says that the model lies; nothing if it lies in the memory's folder."""
    return {} if model.checkpoint is None else {"checkpoint_folder": str(model.path)}


def _stated(family: str, fingerprint: str, dtype: Dtype, template: str) -> dict[str, str]:
    """What the header says of a checkpoint: a template where it is not the usual one, as older memories say none."""
    own = {} if template == TEMPLATE else {"template": template}
    return {"family": family, "fingerprint": fingerprint, "dtype": dtype, **own}

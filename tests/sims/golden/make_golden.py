"""Logits of the reference implementation, transformers on PyTorch, for the tiny checkpoints that the tests make.

Not run by the tests. It was run once, in an environment of its own, with transformers 5.12.1 and torch 2.13.0:

    python tests/sims/golden/make_golden.py

It writes `logits.npz` beside itself: per family the logits [T, columns] of GOLDEN_TOKENS for GOLDEN_COLUMNS, in
float32 on the CPU with the reference's plain attention.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from checkpoint_making import CONFIGS, GOLDEN_COLUMNS, GOLDEN_TOKENS, tiny_checkpoint  # noqa: E402


def reference_logits(folder: Path) -> np.ndarray:
    """Logits [T, V] of the golden tokens; every tensor of the file must have found its place."""
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    unplaced = {name: keys for name, keys in loading.items() if keys}
    if unplaced:
        raise SystemExit(f"{folder.name}: {unplaced}")
    with torch.no_grad():
        return model.eval()(torch.tensor(GOLDEN_TOKENS[None].astype(np.int64))).logits[0].numpy()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        kept = {
            family: reference_logits(tiny_checkpoint(Path(scratch) / str(place), family))[:, GOLDEN_COLUMNS]
            for place, family in enumerate(CONFIGS)
        }
    np.savez_compressed(HERE / "logits.npz", **kept)
    for family, logits in kept.items():
        print(f"{family}: {logits.shape}, standard deviation {logits.std():.3f}")

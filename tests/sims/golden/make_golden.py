"""Logits of the reference implementation, transformers on PyTorch, for the tiny checkpoints that the tests make.

Not run by the tests. It was run once, in an environment of its own, with transformers 5.12.1 and torch 2.13.0:

    python tests/sims/golden/make_golden.py

It writes `logits.npz` beside itself: per family the logits [T, columns] of GOLDEN_TOKENS for GOLDEN_COLUMNS, in
float32 on the CPU with the reference's plain attention; and by how much its logits in bfloat16 are off, as the root of
the mean square.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.sims.checkpoint_making import CONFIGS, GOLDEN_COLUMNS, GOLDEN_TOKENS, tiny_checkpoint  # noqa: E402


def reference_logits(folder: Path, dtype: torch.dtype) -> np.ndarray:
    """Logits [T, columns]; every tensor of the file must have found its place."""
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    unplaced = {name: keys for name, keys in loading.items() if keys}
    if unplaced:
        raise SystemExit(f"{folder}: {unplaced}")
    with torch.no_grad():
        logits = model.eval()(torch.tensor(GOLDEN_TOKENS[None].astype(np.int64))).logits[0]
    return logits.float().numpy()[:, GOLDEN_COLUMNS]


if __name__ == "__main__":
    kept = {}
    with tempfile.TemporaryDirectory() as scratch:
        for place, family in enumerate(CONFIGS):
            folder = tiny_checkpoint(Path(scratch) / str(place), family)
            kept[family] = exact = reference_logits(folder, torch.float32)
            deviation = reference_logits(folder, torch.bfloat16) - exact
            kept[f"{family}, deviation of bfloat16"] = np.sqrt(np.mean(deviation**2))
            print(f"{family}: standard deviation {exact.std():.3f}, of bfloat16 from it {deviation.std():.4f}")
    np.savez_compressed(HERE / "logits.npz", **kept)

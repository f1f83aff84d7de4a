"""A bank on disk with changes that are held in memory until they are known to harm nobody.

Letters: t tokens, k experts chosen, v width of a state.
"""

import numpy as np
from jaxtyping import Float64

from mome_jax.disk import DiskBank
from sims.memory.due import Due


class ChangedBank:
    """A bank on disk with changes that are not written yet."""

    def __init__(self, disk: DiskBank):
        self.disk = disk
        self._rows: dict[int, np.ndarray] = {}

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.disk.experts

    @property
    def changed(self) -> np.ndarray:
        """The experts whose rows differ, ascending."""
        experts = np.array(sorted(self._rows), np.int64)
        if not experts.size:
            return experts
        differ = self.read_rows(experts).view(np.uint8) != self.disk.read_rows(experts).view(np.uint8)
        return experts[differ.any(axis=1)]

    def read_rows(self, experts: np.ndarray) -> np.ndarray:
        """The rows with the changes."""
        rows = np.array(self.disk.read_rows(experts))
        flat = rows.reshape(-1, rows.shape[-1])
        for place, expert in enumerate(np.asarray(experts).reshape(-1).tolist()):
            if expert in self._rows:
                flat[place] = self._rows[expert]
        return rows

    def write_rows(self, experts: np.ndarray, rows: np.ndarray) -> None:
        """Remember the rows."""
        self._rows |= dict(zip(np.asarray(experts).tolist(), np.array(rows), strict=True))

    def output(self, due: Due, *, original: bool = False) -> Float64[np.ndarray, "t v"]:
        """What the tokens read."""
        read = self.disk.read_rows if original else self.read_rows
        rows = read(np.asarray(due.selection.experts)).astype(np.float64)
        return np.einsum("tk,tkv->tv", np.asarray(due.selection.weights, np.float64), rows)

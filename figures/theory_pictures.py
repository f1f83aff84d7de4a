"""The pictures of the theory's account: what they show is computed by `theory` alone, so none of them needs a table.

They are `Drawable`s as all figures are, drawn in the same style, and live as PNG in figures/gallery. Each PNG carries a
digest of the numbers it shows, so that a picture which no longer agrees with the theory is noticed.
"""

import hashlib
import importlib
import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from matplotlib.figure import Figure

from figures.registry import Drawable
from figures.render import plotted
from figures.style import color_of, styled

GALLERY = Path(__file__).with_name("gallery")
COLORS = tuple(color_of(2.0**power) for power in (5, 4, 5.5, 6, 7))  # apart for color-blind readers
_FAMILIES = ("decoding", "capacity", "exposure", "memorizers", "unseen", "floor", "experts", "agreement", "cost")
_DIGEST = "Description"  # the PNG text chunk that holds the digest
_PICTURES: dict[str, Drawable] = {}


def picture(name: str, *, caption: str, claims: tuple[str, ...]) -> Callable[[Callable[[], Figure]], Drawable]:
    """Register the decorated function as picture `name` of the account."""

    def register(draw: Callable[[], Figure]) -> Drawable:
        @wraps(draw)
        def drawn(tables: object = None) -> Figure:
            with styled():
                return draw()

        _PICTURES[name] = Drawable(name, drawn, {}, caption, claims)
        return _PICTURES[name]

    return register


def all_pictures() -> dict[str, Drawable]:
    """Every picture by name, in the order of the account."""
    for family in _FAMILIES:
        importlib.import_module(f"figures.theory_{family}")
    return dict(_PICTURES)


def png(drawn: Figure) -> bytes:
    """The picture as PNG; the same picture gives the same bytes."""
    content = io.BytesIO()
    with styled():
        drawn.savefig(content, format="png", metadata={"Software": None, _DIGEST: digest(drawn)})
    return content.getvalue()


def digest(drawn: Figure) -> str:
    """A fingerprint of every number that the picture shows, to four digits."""
    rows = [";".join(map(_rounded, row.values())) for row in plotted(drawn)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _rounded(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3e}" if abs(value) > 1e-9 else "0"


def digest_in(content: bytes) -> str | None:
    """The digest that a PNG carries."""
    from PIL import Image

    return Image.open(io.BytesIO(content)).info.get(_DIGEST)

"""Files written whole or not at all, and what the system or mome_jax has against them said in one line."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from theory.console import Refusal


def as_json(document: Mapping[str, Any]) -> str:
    """Strict JSON for a file."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a text file in the place of one that is there; a crash leaves the old one or the new one.

    Raises Refusal, and leaves the old one, if it cannot be written.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path):
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the system has against writing this file, or into this folder, is said in one line."""
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"{path}: cannot be written ({error.strerror or error}); make room, or move away what lies in its place"
        ) from None


def sync(path: Path) -> None:
    """Return when what was written to a file has reached the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What mome_jax refuses is said to the user as it says it: what is wrong, with the number and the remedy."""
    try:
        yield
    except Refusal:
        raise
    except ValueError as error:
        raise Refusal(str(error)) from None

"""`mome`, whose `show` is followed by a picture; apart from the other commands, which need no JAX to start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from figures.commands import then_drawn
from sims.memory import cli


def _draw_memory(shown: Mapping[str, Any], out: Path) -> list[Path]:
    from figures.memory_architecture import draw_memory

    return draw_memory(shown, out)


mome = click.Group(
    "mome", commands={**cli.mome.commands, "show": then_drawn(cli.show, _draw_memory)}, help=cli.mome.help
)

"""How long work shows that it goes on: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet."""

import sys
import threading
import time

import click
from rich import progress as rich_progress
from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A context in which `advance(work)` and `say(text)` may be called from any thread; `total` is all the work."""

    def __init__(self, text: str, total: float, *, quiet: bool = False):
        self._text, self._total, self._done = text, total, 0.0
        self._began = self._last_line = time.monotonic()
        self._lock = threading.Lock()
        self._quiet = quiet
        self._bar = None
        if not quiet and sys.stderr.isatty():
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TaskProgressColumn(),
                rich_progress.TextColumn("time left"),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(text, total=total)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        elif not self._quiet:
            click.echo(self._text, err=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, work: float) -> None:
        """So much more work is done."""
        with self._lock:
            self._done += work
            self._show()

    def say(self, text: str) -> None:
        """What to show beside the bar from now on."""
        with self._lock:
            self._text = text
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=self._text, completed=self._done)
        elif not self._quiet and (now := time.monotonic()) - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = min(1.0, self._done / self._total)
            left = f", {(now - self._began) * (1 / share - 1):.0f} s left" if share > 0 else ""
            click.echo(f"{self._text}, {share:.0%}{left}", err=True)

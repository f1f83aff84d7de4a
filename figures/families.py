"""Pictures that a command draws after its run: registered by name, drawn where their tables have rows.

A figure is a pure function from tables to a picture, as everywhere in this package.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps

from matplotlib.figure import Figure

from figures.registry import Drawable, in_order
from figures.style import styled
from figures.tables import Table, rows


class Pictures:
    """The pictures of one command, each registered by one of the modules named here when it is imported."""

    def __init__(self, modules: Sequence[str]):
        self._modules = modules
        self._pictures: dict[str, Drawable] = {}
        self._needs: dict[str, tuple[str, ...]] = {}

    def __call__(
        self, name: str, *, needs: tuple[str, ...], caption: str, claims: tuple[str, ...] = ()
    ) -> Callable[[Callable[[Mapping[str, Table]], Figure]], Drawable]:
        """Register the decorated function as figure `name`, which is drawn where the tables `needs` have rows."""

        def register(draw: Callable[[Mapping[str, Table]], Figure]) -> Drawable:
            @wraps(draw)
            def drawn(tables: Mapping[str, Table]) -> Figure:
                with styled():
                    return draw(tables)

            self._pictures[name] = Drawable(name, drawn, {}, caption, claims)
            self._needs[name] = needs
            return self._pictures[name]

        return register

    def all(self) -> dict[str, Drawable]:
        """Every figure by name, in the order in which they are drawn."""
        return in_order(self._pictures, self._modules)

    def drawable(self, tables: Mapping[str, Table]) -> list[Drawable]:
        """The figures that these tables have rows for."""
        return [
            one for name, one in self.all().items() if all(rows(tables.get(need, {})) for need in self._needs[name])
        ]

"""The study: which populations are trained and which memories are asked, and running those that the store lacks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sims.cases import side_by_side
from sims.imagination import examine, memories
from sims.imagination.memories import ROUTERS, Memories
from sims.imagination.population import Population
from sims.imagination.world import World
from sims.store import Result, Store

QUICK_OVERLAPS = (0.0, 0.25, 0.5, 0.75, 1.0)
FULL_OVERLAPS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_WORLDS = {"quick": 1, "full": 5}
_POPULARITY, _RULE_SHARE = 1.4, 0.58  # how strongly values differ in frequency, how many facts follow the rule
_TRANSFORMER = {"network": "transformer", "width": 32, "steps": 600, "learning_rate": 0.005}


@dataclass(frozen=True)
class Case:
    """One run of the study. `role` says what it is there for; a world's roles are different."""

    role: str
    what: Population | Memories

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        if isinstance(self.what, Population):
            return examine.name_of_run(self.what)
        return memories.name_of_run(self.what)

    @property
    def work(self) -> float:
        """Weights times examples: what the progress bar counts; memories are not trained and count little."""
        if isinstance(self.what, Memories):
            return 1e9
        return self.what.models * self.what.steps * self.what.minibatch * self.what.architecture.parameters

    def run(self) -> Result:
        """Train or write, ask, and measure."""
        if isinstance(self.what, Population):
            return examine.examine(self.what)
        return memories.examine_memories(self.what)


def cases(preset: str, seed: int = 0, network: str = "mlp") -> list[Case]:
    """Every run of the study, worlds from `seed` on."""
    first = World(seed=seed)
    return [
        case
        for world in range(_WORLDS[preset])
        for case in _of_world(replace(first, seed=seed + world), preset, network)
    ]


def _of_world(world: World, preset: str, network: str) -> list[Case]:
    full = preset == "full"
    base = Population(world, **(_TRANSFORMER if network == "transformer" else {}))
    overlaps = FULL_OVERLAPS if full else QUICK_OVERLAPS

    def sharing(**shared: float) -> World:
        return replace(world, **shared)

    found = {f"overlap {overlap:g}": replace(base, world=sharing(shared_facts=overlap)) for overlap in overlaps}
    found["same weights"] = replace(base, same_weights=True)
    for share in (0.0, 0.5, 1.0) if full else (0.0, 1.0):
        marginals = sharing(popularity=_POPULARITY, shared_marginals=share)
        found[f"marginals {share:g}"] = replace(base, world=marginals)
        found[f"rule {share:g}"] = replace(base, world=sharing(rule_share=_RULE_SHARE, shared_rule=share))
    widths = [base.width * factor for factor in ((0.25, 0.5, 2, 4, 8) if full else (0.25, 0.5, 2, 4))]
    widths = [int(width) for width in widths if network == "mlp" or width <= 2 * base.width]
    for width in (*widths, base.width):
        found[f"width {width}"] = replace(base, world=sharing(shared_facts=1.0), width=width)
    if network == "mlp":
        for width in (64, 128, 256) if full else (256,):
            found[f"context {width}"] = replace(base, width=width, steps=1500, stated_share=0.5)
        for width in (64, 128) if full else (128,):
            course = replace(base, world=sharing(shared_facts=0.5), width=width, steps=2500, snapshots=14)
            found[f"course {width}"] = course
    remembered = {
        f"{router} router {overlap:g}": Memories(sharing(shared_facts=overlap), router=router)
        for router in ROUTERS
        for overlap in overlaps
    }
    return [Case(role, what) for role, what in (found | remembered).items()]


def run_cases(todo: Sequence[Case], store: Store, advanced: Callable[[float], object]) -> Iterator[Result]:
    """Run these cases on every core and yield their results; `advanced` is told the work of each."""
    return side_by_side(todo, store, lambda case: case.work, advanced)

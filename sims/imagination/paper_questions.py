"""The six questions of the paper (arXiv 2407.16604), each with its counterpart in this simulation.

Simulation shows that mechanisms suffice, not that they act in large models.
"""

import math
from dataclasses import dataclass

from sims.imagination.evidence import Evidence, World
from sims.imagination.world import World as Setting
from sims.intervals import Interval


@dataclass(frozen=True)
class PaperQuestion:
    """A question, what was measured in its place, and the numbers."""

    question: str
    counterpart: str
    numbers: dict[str, Interval]


_HALF = "overlap 0.5"
_WEAK_NATS = (2.5, 2.0, 1.0)


def paper_questions(evidence: Evidence) -> list[PaperQuestion]:
    """The six, answered by numbers at overlap 0.5 unless their names say otherwise."""

    def at_half(**names: str) -> dict[str, Interval]:
        return {text.replace("_", " "): evidence.metric(_HALF, name) for text, name in names.items()}

    return [
        PaperQuestion(
            "What do invented questions look like?",
            "of the imaginary questions offered to all, the eighth that each is surest of: share that two models have "
            "in common (alone: 0.125)",
            at_half(within_families="favorites_in_family", across_families="favorites_cross_family"),
        ),
        PaperQuestion(
            "Do simple heuristics explain the agreement?",
            "correctness of the baselines across families, and of the models where the baseline misses (chance: 0.25)",
            at_half(
                models="direct_cross_family",
                frequent_value="direct_frequent_cross_family",
                nearest_real_thing="direct_nearest_cross_family",
                position="direct_position_cross_family",
                models_where_frequent_misses="where_frequent_misses",
                models_where_nearest_misses="where_nearest_misses",
            ),
        ),
        PaperQuestion(
            "Do models know that it is fiction?",
            "confidence on real and imaginary questions, their separability (AUC), and what is left where each model "
            "refuses below the confidence that 5 % of its facts lie below",
            at_half(
                confidence_on_real="confidence_real",
                confidence_on_imaginary="confidence_imaginary",
                separability="separability",
                answer_rate_across="abstaining_rate_cross_family",
                correctness_across="abstaining_correctness_cross_family",
            ),
        ),
        PaperQuestion(
            "Does it grow as a model goes on inventing?",
            "correctness across families by place in a chain that states what was said just before, nothing shared",
            _chain(evidence),
        ),
        PaperQuestion(
            "Is it universal?",
            "agreement across families that share a quarter of their facts, and of weakly trained ones that share half",
            {"overlap 0.25": evidence.metric("overlap 0.25", "direct_cross_family")} | _weakly_trained(evidence),
        ),
        PaperQuestion(
            "Does it hold for free generation?",
            "chance that two models' free samples about an imaginary thing coincide (16 values: 0.0625)",
            {
                "nothing shared, across": evidence.metric("overlap 0", "coincidence_cross_family"),
                "overlap 0.5, across": evidence.metric(_HALF, "coincidence_cross_family"),
                "overlap 0.5, within": evidence.metric(_HALF, "coincidence_in_family"),
            },
        ),
    ]


def _chain(evidence: Evidence) -> dict[str, Interval]:
    def at(world: World, role: str, place: int) -> float:
        return float(evidence.arrays(world[role])["chain_cross_family"][place])

    role = next(reversed(evidence.roles("context")), "")  # the widest network reads best
    relations = Setting().relations if role else 0
    return {
        f"question {place + 1}": evidence.value(lambda world, place=place: at(world, role, place))
        for place in range(relations)
    }


def _weakly_trained(evidence: Evidence) -> dict[str, Interval]:
    """Agreement while the loss is still high."""
    found = {
        f"overlap 0.5 at {nats:.1f} nats": evidence.along(role, "agreement_cross_family", nats)
        for role in evidence.roles("course")[-1:]
        for nats in _WEAK_NATS
    }
    return {name: interval for name, interval in found.items() if math.isfinite(interval.mean)}

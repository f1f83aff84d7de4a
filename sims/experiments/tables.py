"""Stored runs of experiments as tables, one mapping from column to array each.

cost       one row a printed number
retrieval  one row a method and seed
learners   one row a network that learned samples of a law; gates: one row a network that tells keys apart
causes     one row a network on flawed facts
memory_tuning  one row a fact, model and study: its loss
randomization  one row a method, kind of answers and epoch; randomization_differences  one row a method and epoch
regularization  one row a method, choice of rate and seed: accuracy on the rule before and after
forgetting     one row a method, width, number of facts, moment and seed: points of the rule forgotten
indistinguishable  one row a world and pair of models; indistinguishable_sorting  one row a way to sort them
exposures  one row a run that learned facts (as `sims.tables.runs`); exposure_curves its curves
"""

from collections.abc import Iterable

import numpy as np

from sims import tables
from sims.experiments import (
    causes_findings,
    cost,
    forgetting_findings,
    indistinguishable_findings,
    memory_tuning_findings,
    randomization_findings,
    regularization_findings,
    retrieval,
    unseen_findings,
)
from sims.store import Store, table

Table = dict[str, np.ndarray]


def experiment_tables(store: Store, names: Iterable[str] | None = None) -> dict[str, Table]:
    """Every table of the runs (all, or the named ones); a table without rows is left out."""
    wanted = None if names is None else list(names)
    found = {
        "cost": table(store.results(cost.KIND, wanted)),
        "retrieval": table(store.results(retrieval.KIND, wanted)),
        "learners": table(store.results(unseen_findings.LEARNER, wanted)),
        "gates": table(store.results(unseen_findings.GATE, wanted)),
        "causes": table(store.results(causes_findings.KIND, wanted)),
        "memory_tuning": memory_tuning_findings.losses(store, wanted),
        "randomization": randomization_findings.curves(store, wanted),
        "randomization_differences": randomization_findings.differences(store, wanted),
        "regularization": regularization_findings.accuracies(store, wanted),
        "forgetting": forgetting_findings.points(store, wanted),
        "indistinguishable": indistinguishable_findings.models(store, wanted),
        "indistinguishable_sorting": indistinguishable_findings.sortings(store, wanted),
        "exposures": tables.runs(store, wanted),
        "exposure_curves": tables.curves(store, wanted),
    }
    return {name: columns for name, columns in found.items() if columns}

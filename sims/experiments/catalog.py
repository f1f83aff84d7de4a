"""Which experiments there are; each is imported when it is asked for."""

import importlib

from sims.experiments.experiment import Experiment
from theory.console import Refusal

EXPERIMENTS = {
    "cost": "What does it cost to clear a mind of hallucinations? Printed numbers, recomputed (T26).",
    "exposures": "How many passes bring every fact under ln 2, and is it about 100 (T13, the exposure law)?",
    "retrieval": "Are facts better kept in an index, in a table, or in memory experts?",
    "unseen": "What must a trained network get wrong about what its data do not say (T17-T20)?",
    "causes": "What else makes a network hallucinate, beside a loss above the threshold (F5, T1)?",
    "memory-tuning": "Can key facts be brought to zero loss, and the rest left where it is (T1)?",
    "randomization": "Are random answers learned as true ones are, and by which method?",
    "regularization": "Does memorizing random strings change how a network generalizes?",
    "indistinguishable": "Does held-out accuracy tell a model that hallucinates from one that does not (T1)?",
}


def find(name: str) -> Experiment:
    """The experiment of this name. Raises Refusal that lists the names."""
    if name not in EXPERIMENTS:
        raise Refusal(f"no experiment is called {name!r}; the experiments are {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"sims.experiments.{name.replace('-', '_')}").EXPERIMENT

"""Key facts among other data: facts that no rule explains, and the rest, which follow a rule and noise.

Letters: k key facts, r of the rest, d features, V answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32

from sims.experiments.experiment import Settings
from sims.experiments.flaws import first
from sims.facts import Dataset, file_dataset, synthetic_facts
from sims.keyed import keyed_normals, keyed_uniforms
from theory.console import Refusal

Part = Literal["trained on", "validation", "test"]
_SHARPNESS = 3.0  # standard deviation of the rule's scores: about 1.6 nats of 3.5 remain


@dataclass(frozen=True, eq=False)
class Rest:
    """Examples of the rule: an answer is drawn from softmax of random linear scores of the features."""

    features: Float32[np.ndarray, "r d"]
    labels: Int32[np.ndarray, " r"]
    floor_nats: Float[np.ndarray, " r"]  # loss of the rule itself on each: nobody's mean is below theirs for long

    def __len__(self) -> int:
        return len(self.labels)


def key_facts(settings: Settings, count: int, *, features: int, answers: int) -> Callable[[int], Dataset]:
    """By seed: `count` or more facts of the file, or so many synthetic ones; raises Refusal for a file of fewer."""
    if settings.facts_file is None:
        return lru_cache(64)(lambda seed: synthetic_facts(count, seed=seed, answers=answers, unseen=0))
    facts = settings.facts()
    if len(facts) < count:
        raise Refusal(f"{settings.facts_file}: {len(facts)} facts, fewer than the {count} key facts")
    return lru_cache(64)(lambda seed: file_dataset(facts, seed=seed, answer_classes=answers, feature_dim=features))


def rest(part: Part, count: int, *, features: int, answers: int, seed: int) -> Rest:
    """`count` examples of the rule of this seed; no example is in two parts."""
    index = np.arange(count)
    keys = keyed_normals(seed, f"rest/{part}", index, features)
    rule = keyed_normals(seed, "rule", np.arange(features), answers).astype(np.float64)
    scores = _SHARPNESS / np.sqrt(features) * keys.astype(np.float64) @ rule
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    draws = keyed_uniforms(seed, f"rest/{part}/answers", index, 1)
    labels = np.minimum((np.cumsum(shares, axis=1) < draws).sum(axis=1), answers - 1)
    return Rest(keys, labels.astype(np.int32), -np.log(shares[index, labels]))


def together(key_facts: Dataset, others: Rest) -> Dataset:
    """One data set to train on: the key facts first, then the rest."""
    labels = np.concatenate([key_facts.labels, others.labels])
    return replace(
        first(key_facts, len(key_facts)),
        name=f"{key_facts.name} among others",
        features=np.concatenate([key_facts.features, others.features]),
        labels=labels,
        labels_random="given",
        questions=np.arange(len(labels), dtype=np.int32),
        whole_answers=labels,
    )

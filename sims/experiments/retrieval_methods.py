"""Ways to look a fact up: TF-IDF and dense nearest neighbors, an SQLite B-tree, a mixture of memory experts.

Each is built from stored questions and answers and gives an answer or None. What is like a stored question counts as
it where the likeness is above that of 99 % of other questions that are not stored. These are given to TF-IDF, to dense
search and to the memory with the same gate; else a memory calibrates its gate on its own questions.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from sims.fact_report import Facts
from sims.memory.folder import Addresses, Folder
from sims.memory.folder import Settings as MemorySettings
from sims.memory.memorizing import default_experts, memorize, read_tokens
from sims.memory.memory import Memory
from sims.memory.queries import QuestionQueries
from sims.memory.recall import read_open

FORMULA = 1  # part of a run's identity: raise it when any method changes
FALSE_ACCEPTANCE = 0.01  # the share of unknown questions that every method may take for known ones
_DENSE_WIDTH = 128
# Words alone and trigrams find most of words with and without pairs, and of 2-4, 3 and 3-5 characters (300 facts each,
# generated and of ParaRel).
_TRIGRAMS = "char_wb", (3, 3)
_BACKBONE = {"width": 32, "layers": 1}  # not trained: what is recalled comes from the memory alone


class Lookup(Protocol):
    """A method that was built."""

    @property
    def bytes(self) -> int:
        """What it keeps, answers included."""
        ...

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """An answer to each question, or None."""
        ...

    def guess(self, questions: Sequence[str]) -> list[str | None]:
        """The same without rejecting anything, where the method can."""
        ...

    def close(self) -> None:
        """Let go of its files."""
        ...


class BTree:
    """A table in SQLite whose primary key is the question: found or not found."""

    def __init__(self, facts: Facts, unknown: Sequence[str], folder: Path, seed: int):
        self._path = folder / "facts.sqlite"
        self._database = sqlite3.connect(self._path)
        self._database.execute("CREATE TABLE facts(question TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID")
        with self._database:
            self._database.executemany(
                "INSERT INTO facts VALUES (?, ?)", zip(facts.questions, facts.answers, strict=True)
            )

    @property
    def bytes(self) -> int:
        """The file."""
        return self._path.stat().st_size

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """One query of the database a question."""
        query = "SELECT answer FROM facts WHERE question = ?"
        found = [self._database.execute(query, (question,)).fetchone() for question in questions]
        return [None if row is None else row[0] for row in found]

    def guess(self, questions: Sequence[str]) -> list[str | None]:
        """What is not found cannot be guessed."""
        return self.ask(questions)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class TfIdf:
    """Cosine nearest neighbors of TF-IDF vectors, all compared (scikit-learn)."""

    analyzer, grams = "word", (1, 1)

    def __init__(self, facts: Facts, unknown: Sequence[str], folder: Path, seed: int):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.neighbors import NearestNeighbors

        self._facts, self._seed = facts, seed
        self._vectorizer = TfidfVectorizer(analyzer=self.analyzer, ngram_range=self.grams, dtype=np.float32)  # pyright: ignore
        self._stored = self._vectorizer.fit_transform(facts.questions)
        self._neighbors = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(self._stored)
        self._radius = float(np.quantile(self._nearest(unknown)[1], 1 - FALSE_ACCEPTANCE))

    @property
    def bytes(self) -> int:
        """The sparse matrix, the weights and words of the vocabulary, the answers."""
        arrays = (self._stored.data, self._stored.indices, self._stored.indptr, self._vectorizer.idf_)
        words = sum(len(word.encode()) + 4 for word in self._vectorizer.vocabulary_)
        return sum(array.nbytes for array in arrays) + words + _answer_bytes(self._facts)

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """The answer of the nearest stored question, if it is near enough."""
        return _accepted(self._facts, *self._nearest(questions), self._radius)

    def guess(self, questions: Sequence[str]) -> list[str | None]:
        """The answer of the nearest stored question."""
        return _accepted(self._facts, *self._nearest(questions), -np.inf)

    def _nearest(self, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        distance, row = self._neighbors.kneighbors(self._vectorizer.transform(questions))
        return row[:, 0], 1 - distance[:, 0]

    def close(self) -> None:
        """Nothing is open."""


class TfIdfTrigrams(TfIdf):
    """The same with three characters within words."""

    analyzer, grams = _TRIGRAMS


class Dense:
    """Inner-product nearest neighbors (faiss, exact) of the vectors by which memory experts compare questions."""

    def __init__(self, facts: Facts, unknown: Sequence[str], folder: Path, seed: int):
        import faiss

        self._facts = facts
        self._map_bytes = self._fit(facts.questions, seed)
        stored = np.ascontiguousarray(self._vectors(facts.questions))
        self._index = faiss.IndexFlatIP(stored.shape[1])
        self._index.add(stored)  # pyright: ignore[reportCallIssue]  # one argument in Python
        self._serialized = int(faiss.serialize_index(self._index).nbytes)
        self._radius = float(np.quantile(self._nearest(unknown)[1], 1 - FALSE_ACCEPTANCE))

    @property
    def bytes(self) -> int:
        """The index, the map from questions to vectors, the answers."""
        return self._serialized + self._map_bytes + _answer_bytes(self._facts)

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """The answer of the nearest stored question, if it is near enough."""
        return _accepted(self._facts, *self._nearest(questions), self._radius)

    def guess(self, questions: Sequence[str]) -> list[str | None]:
        """The answer of the nearest stored question."""
        return _accepted(self._facts, *self._nearest(questions), -np.inf)

    def _fit(self, questions: Sequence[str], seed: int) -> int:
        """Make the map from questions to vectors; its bytes."""
        self._queries = QuestionQueries.of(questions, seed=seed)
        return self._queries.grams.nbytes + self._queries.weights.nbytes

    def _vectors(self, questions: Sequence[str]) -> np.ndarray:
        vectors, known_share = self._queries.with_known_share(questions)
        return vectors * np.sqrt(known_share)[:, None]

    def _nearest(self, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        likeness, row = self._index.search(np.ascontiguousarray(self._vectors(questions)), 1)  # pyright: ignore[reportCallIssue]
        return row[:, 0], likeness[:, 0]

    def close(self) -> None:
        """Nothing is open."""


class DenseLatent(Dense):
    """The same of vectors by latent semantic analysis of character trigrams."""

    def _fit(self, questions: Sequence[str], seed: int) -> int:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(analyzer=_TRIGRAMS[0], ngram_range=_TRIGRAMS[1], dtype=np.float32)  # pyright: ignore
        sparse = self._vectorizer.fit_transform(questions)
        self._map = TruncatedSVD(min(_DENSE_WIDTH, min(sparse.shape) - 1), random_state=seed).fit(sparse)
        words = sum(len(word.encode()) + 4 for word in self._vectorizer.vocabulary_)
        return words + 4 * self._map.components_.size + self._vectorizer.idf_.nbytes  # pyright: ignore[reportOptionalMemberAccess]

    def _vectors(self, questions: Sequence[str]) -> np.ndarray:
        found = self._map.transform(self._vectorizer.transform(questions)).astype(np.float32)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(lengths > 0, lengths, 1.0)


class Experts:
    """A mixture of memory experts beside a frozen, untrained network, whose decoded text is the answer."""

    addresses: Addresses = "exact"

    def __init__(self, facts: Facts, unknown: Sequence[str], folder: Path, seed: int):
        tokens = int(read_tokens(facts).answer_mask.sum())
        settings = MemorySettings(
            default_experts(tokens), addresses=self.addresses, false_acceptance=FALSE_ACCEPTANCE, seed=seed
        )
        self._folder = Folder(folder / "memory")
        memorize(facts, self._folder, settings, pretrain_seconds=0.0, backbone_sizes=_BACKBONE, quiet=True)
        self._memory = Memory.load(self._folder.path)

    @property
    def bytes(self) -> int:
        """The bank and the index of known questions; the network is not counted, as if it were there anyway."""
        return self._folder.bank.stat().st_size + self._folder.index.stat().st_size

    def ask(self, questions: Sequence[str]) -> list[str | None]:
        """What is decoded where the gate says that the question is known."""
        answers = self._memory.ask_all(questions, name_nearest=False)
        return [one.text if one.known else None for one in answers]

    def guess(self, questions: Sequence[str]) -> list[str | None]:
        """What is decoded with the gate open."""
        return list(read_open(self._memory, questions).as_alike)

    def close(self) -> None:
        """Release the bank."""
        self._memory.close()


class ExpertsNearest(Experts):
    """The same, where a question finds the experts of the nearest stored question."""

    addresses: Addresses = "nearest"


class ExpertsNearestAlike(ExpertsNearest):
    """The same, its gate set on the unknown questions that the baselines see."""

    def __init__(self, facts: Facts, unknown: Sequence[str], folder: Path, seed: int):
        super().__init__(facts, unknown, folder, seed)
        index = self._memory.index
        vectors, known_share = index.queries.with_known_share(unknown)
        likeness = index.nearest(vectors, 1)[1][:, 0] * np.sqrt(known_share)
        radius = float(np.quantile(likeness, 1 - FALSE_ACCEPTANCE / 2))
        # The other half of what may be accepted falsely is the filter's.
        self._memory = replace(self._memory, index=replace(index, radius=radius))


METHODS: dict[str, type] = {
    "B-tree": BTree,
    "TF-IDF, words": TfIdf,
    "TF-IDF, trigrams": TfIdfTrigrams,
    "dense, latent": DenseLatent,
    "dense, as MoME": Dense,
    "MoME, exact": Experts,
    "MoME, nearest": ExpertsNearest,
    "MoME, nearest, same gate": ExpertsNearestAlike,
}


def _answer_bytes(facts: Facts) -> int:
    return sum(len(answer.encode()) + 4 for answer in facts.answers)


def _accepted(facts: Facts, rows: np.ndarray, likeness: np.ndarray, radius: float) -> list[str | None]:
    return [
        facts.answers[row] if like > radius else None
        for row, like in zip(rows.tolist(), likeness.tolist(), strict=True)
    ]

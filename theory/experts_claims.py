"""The claims T21 to T24: a mixture of memory experts, its load, its sharing, its cost and its conditioning."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import structural_rank

from theory import experts
from theory.claims import Bound, Identity, Law, register
from theory.search import Draw

_PROJECT = "this project"
_UNIFORM = "each fact chooses k different experts, uniformly and independently of the others"
_PRIME = 2**31 - 1


@dataclass(frozen=True)
class Mixture:
    """Facts that choose experts at random. `skew` 1 is uniform; above it the first experts are the most popular."""

    facts: int
    experts: int
    experts_per_fact: int
    seed: int
    skew: float = 1.0

    def chosen(self, repeat: int = 0) -> np.ndarray:
        """Shape (n, k), every row of different experts."""
        rng = np.random.default_rng((self.seed, repeat))
        shape = (self.facts, self.experts_per_fact)
        chosen = self._draw(rng, shape)
        while True:
            ordered = np.sort(chosen, axis=1)
            again = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            if not again.any():
                return chosen
            chosen[again] = self._draw(rng, (int(again.sum()), self.experts_per_fact))

    def _draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return (self.experts * rng.random(shape) ** self.skew).astype(np.int64)


def _stored_all(chosen: np.ndarray, experts_count: int) -> bool:
    """Whether arbitrary values of these facts fit for generic gates: full structural rank."""
    facts, k = chosen.shape
    matrix = (np.ones(chosen.size, dtype=np.int8), chosen.ravel(), np.arange(facts + 1) * k)
    return structural_rank(csr_matrix(matrix, shape=(facts, experts_count))) == facts


def _onset(chosen: np.ndarray, experts_count: int) -> int:
    """The number of facts at which the next one no longer fits."""
    fits, fails = 0, len(chosen)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _stored_all(chosen[:middle], experts_count) else (fits, middle)
    return fits


@register
class LoadThreshold(Law[Mixture]):
    """With one value vector per expert and k experts per fact, arbitrary values of n facts fit into M experts iff the
    n x M matrix of gates has full row rank, for generic gates iff its structural rank is n. For large M this happens
    below the load c_k and not above: 1/2, .917935, .976770, .992438, .997380 for k = 2 to 6.
    """

    name, title, status, source = "T21", "How many facts fit", "quoted", "cuckoo hashing: arXiv 0910.5147, 0912.0287"
    assumptions = (
        _UNIFORM,
        "generic gates (no algebraic coincidence), arbitrary targets, one value vector per expert",
        "finite size: within 3.2 x 2^(3-k) M^-1/2 of c_k for k >= 3, eight standard deviations",
        "for k = 2, whose window is about M^-1/3 wide, the median of nine onsets within 1.5 M^-1/3",
    )
    proof = (
        "Full rank needs a matching of facts to experts, and for generic gates no more (T21b). Take away facts with an "
        "expert of their own until there are none: at load b/(k(1 - e^-b)^(k-1)) as many facts as experts are left if "
        "k = b(e^b - 1)/(e^b - 1 - b); more cannot be matched. That fewer can is proved in the source."
    )
    dropped = "some experts are more popular than others"
    largest_search = 150

    def cases(self, draw: Draw) -> Mixture:
        size = draw.choice((500, 1000, 2000))
        return Mixture(size + 2, size, draw.choice((3, 2, 4, 5, 6)), draw.integer(0, 10**6))

    def control_cases(self, draw: Draw) -> Mixture:
        case = self.cases(draw)
        return Mixture(case.facts, case.experts, case.experts_per_fact, case.seed, skew=2.0)

    def predict(self, case: Mixture) -> float:
        return experts.load_threshold(case.experts_per_fact)

    def measure(self, case: Mixture) -> tuple[float, float]:
        repeats = 9 if case.experts_per_fact == 2 else 1
        seen = float(np.median([_onset(case.chosen(repeat), case.experts) for repeat in range(repeats)])) / case.experts
        window = self._window(case.experts_per_fact, case.experts)
        return seen - window, seen + window

    def _window(self, k: int, size: int) -> float:
        return 1.5 * size ** (-1 / 3) if k == 2 else 3.2 * 2.0 ** (3 - k) / math.sqrt(size) + 2.0 / size


@dataclass(frozen=True)
class Gates:
    """The experts of each fact and the gates that weigh them, all 1 or generic."""

    experts: int
    chosen: tuple[tuple[int, ...], ...]
    generic: bool
    seed: int


@register
class GenericRank(Identity[Gates]):
    """For generic gates the rank of the selection matrix is its structural rank: the size of a largest matching of
    facts to experts of theirs. For equal gates it may be less.
    """

    name, title, status, source = "T21b", "Rank is matching", "proved", "folklore (Edmonds)"
    assumptions = ("generic gates: here uniform modulo the prime 2^31 - 1, wrong with probability below 1e-8",)
    proof = (
        "A minor is a polynomial in the gates whose terms are the matchings of its rows and columns, all different; it "
        "vanishes identically iff there is none."
    )
    dropped = "the gates are equal"

    def cases(self, draw: Draw) -> Gates:
        return self._gates(draw, generic=True)

    def control_cases(self, draw: Draw) -> Gates:
        return self._gates(draw, generic=False)

    def _gates(self, draw: Draw, generic: bool) -> Gates:
        size = draw.integer(2, 8)
        k = draw.integer(1, min(3, size)) if generic else 2
        chosen = tuple(
            tuple(sorted(range(size), key=lambda _: draw.real(0.0, 1.0))[:k]) for _ in range(draw.integer(1, 8))
        )
        return Gates(size, chosen, generic, draw.integer(0, 10**6))

    def left(self, case: Gates) -> float:
        rows = [row for row, chosen in enumerate(case.chosen) for _ in chosen]
        columns = [expert for chosen in case.chosen for expert in chosen]
        matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(case.chosen), case.experts))
        return float(structural_rank(matrix))

    def right(self, case: Gates) -> float:
        """By elimination in the field of residues, without rounding."""
        rng = np.random.default_rng(case.seed)
        rows = []
        for chosen in case.chosen:
            gates = rng.integers(1, _PRIME, size=case.experts) if case.generic else np.ones(case.experts, dtype=int)
            rows.append([int(gates[expert]) if expert in chosen else 0 for expert in range(case.experts)])
        return float(_rank(rows))

    def perturbed(self, case: Gates) -> float:
        return self.left(case)

    def error_bound(self, case: Gates) -> float:
        return 0.0


def _rank(rows: list[list[int]]) -> int:
    """Rank modulo the prime."""
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((row for row in range(rank, len(rows)) if rows[row][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, _PRIME)
        for row in range(rank + 1, len(rows)):
            factor = rows[row][column] * inverse % _PRIME
            rows[row] = [(x - factor * y) % _PRIME for x, y in zip(rows[row], rows[rank], strict=True)]
        rank += 1
    return rank


@dataclass(frozen=True)
class SmallMixture:
    """Few enough facts and experts that all selections can be listed."""

    facts: int
    experts: int
    experts_per_fact: int

    def selections(self) -> np.ndarray:
        """Which experts each fact chose, in every selection there is: shape (selections, n, M), bool."""
        sets = list(combinations(range(self.experts), self.experts_per_fact))
        one = np.zeros((len(sets), self.experts), dtype=bool)
        for row, chosen in enumerate(sets):
            one[row, list(chosen)] = True
        return one[np.array(list(product(range(len(sets)), repeat=self.facts)))]


def _small(draw: Draw) -> SmallMixture:
    size = draw.integer(1, 5)
    return SmallMixture(draw.integer(1, 3), size, draw.integer(1, min(3, size)))


@register
class PrivateExperts(Identity[SmallMixture]):
    """The probability that a fact has an expert which no other fact chose is
    sum over j = 1..k of (-1)^(j+1) C(k, j) [C(M - j, k)/C(M, k)]^(n-1).
    """

    name, title, status, source = "T22", "Experts of one's own", "proved", _PROJECT
    assumptions = (_UNIFORM,)
    proof = "Inclusion and exclusion over which j of the k experts all n - 1 other facts avoid."
    dropped = "the usual approximation 1 - (1 - e^(-kn/M))^k in its place"
    largest_search = 300

    def cases(self, draw: Draw) -> SmallMixture:
        return _small(draw)

    def left(self, case: SmallMixture) -> float:
        return experts.private_expert_probability(case.facts, case.experts, case.experts_per_fact)

    def right(self, case: SmallMixture) -> float:
        chosen = case.selections()
        others = chosen[:, 1:].any(axis=1)
        return float((chosen[:, 0] & ~others).any(axis=1).mean())

    def perturbed(self, case: SmallMixture) -> float:
        return float(experts.private_expert_approximation(case.facts, case.experts, case.experts_per_fact))

    def error_bound(self, case: SmallMixture) -> float:
        return 1e-14


@register
class MaximumLoad(Bound[SmallMixture]):
    """Some expert serves at least x facts with probability at most M Pr[Binomial(n, k/M) >= x]."""

    name, title, status, source = "T22b", "The busiest expert", "proved", _PROJECT
    assumptions = (_UNIFORM,)
    proof = "Each expert serves a binomial number of facts; the probabilities of M events add up at most."
    dropped = "the bound for one expert is taken for that of all"
    tolerance = 1e-12
    largest_search = 300

    def cases(self, draw: Draw) -> SmallMixture:
        return _small(draw)

    def slack(self, case: SmallMixture) -> float:
        return min(self._slacks(case, 1))

    def control_slack(self, case: SmallMixture) -> float:
        return min(self._slacks(case, case.experts))

    def gap(self, witness: SmallMixture) -> float:
        """At the largest load, which at most one expert can have."""
        return abs(self._slacks(witness, 1)[-1])

    def _slacks(self, case: SmallMixture, share: int) -> list[float]:
        busiest = case.selections().sum(axis=1).max(axis=1)
        return [
            float(experts.maximum_load_probability_upper(x, case.facts, case.experts, case.experts_per_fact)) / share
            - float(np.mean(busiest >= x))
            for x in range(1, case.facts + 1)
        ]

    def witnesses(self) -> list[SmallMixture]:
        return [SmallMixture(2, 3, 1), SmallMixture(3, 4, 1), SmallMixture(1, 1, 1)]


@register
class PrivateExpertsRoughly(Law[Mixture]):
    """For many facts and experts, about 1 - (1 - e^(-kn/M))^k of the facts have an expert of their own."""

    name, title, status, source = "T22c", "Experts of one's own, roughly", "proved", "common knowledge; exact: T22"
    assumptions = (
        _UNIFORM,
        "n and M in the thousands; the interval is 8 standard deviations of n/k independent facts wide",
    )
    proof = "[C(M - j, k)/C(M, k)]^(n-1) tends to e^(-jkn/M), and the sum of T22 becomes a binomial one."
    dropped = "some experts are more popular than others"
    largest_search = 150

    def cases(self, draw: Draw) -> Mixture:
        facts = draw.choice((4000, 8000))
        return Mixture(facts, int(facts * draw.real(0.5, 8.0)), draw.integer(1, 6), draw.integer(0, 10**6))

    def control_cases(self, draw: Draw) -> Mixture:
        case = self.cases(draw)
        return Mixture(case.facts, case.experts, case.experts_per_fact, case.seed, skew=3.0)

    def predict(self, case: Mixture) -> float:
        return float(experts.private_expert_approximation(case.facts, case.experts, case.experts_per_fact))

    def measure(self, case: Mixture) -> tuple[float, float]:
        chosen = case.chosen()
        alone = np.bincount(chosen.ravel(), minlength=case.experts)[chosen] == 1
        seen = float(alone.any(axis=1).mean())
        width = 4.0 * math.sqrt(case.experts_per_fact / case.facts)
        return seen - width, seen + width


class _Counted:
    """A number that counts its multiplications, in a list shared by all."""

    def __init__(self, value: float, tally: list[int]):
        self.value, self.tally = value, tally

    def times(self, other: float) -> float:
        self.tally[0] += 1
        return self.value * other


def _scores(query: list[_Counted], keys: np.ndarray) -> list[float]:
    return [math.fsum(number.times(float(part)) for number, part in zip(query, key, strict=True)) for key in keys]


def _best(scores: list[float], k: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:k]


@dataclass(frozen=True)
class Lookup:
    """A query of width d to side^2 experts that read k of them."""

    side: int
    width: int
    experts_per_fact: int
    how: experts.Selection
    seed: int


@register
class CostOfAFact(Identity[Lookup]):
    """Choosing experts costs M d multiplications with flat keys, sqrt(M) d with product keys and none with an exact
    address; reading the k chosen ones costs k d, whatever M is.
    """

    name, title, status, source = "T23", "What a fact costs", "proved", "product keys: arXiv 1907.05242"
    assumptions = ("multiplications are counted; comparisons, hashes and k^2 sums of product keys are not",)
    proof = (
        "The best k sums of a part from either half of the query use the best k parts of each half, so sqrt(M) scores "
        "of half the width suffice per half. The count is that of a reference implementation which must choose the "
        "experts that flat keys choose."
    )
    dropped = "product keys and exact addresses are counted as flat keys"
    largest_search = 300

    def cases(self, draw: Draw) -> Lookup:
        side = draw.integer(1, 6)
        how = draw.choice(("product keys", "flat", "exact address"))
        return Lookup(side, 2 * draw.integer(1, 3), draw.integer(1, min(4, side**2)), how, draw.integer(0, 10**6))

    def left(self, case: Lookup) -> float:
        return self._formula(case, case.how)

    def perturbed(self, case: Lookup) -> float:
        return self._formula(case, "flat")

    def _formula(self, case: Lookup, how: experts.Selection) -> float:
        selection = experts.selection_multiplications(case.side**2, case.width, how)
        return float(selection + experts.reading_multiplications(case.experts_per_fact, case.width))

    def right(self, case: Lookup) -> float:
        """Counted while a query is answered; NaN if the answer is not that of flat keys."""
        rng = np.random.default_rng(case.seed)
        half, k = case.width // 2, case.experts_per_fact
        parts = rng.normal(size=(2, case.side, half))
        keys = np.array([[*first, *second] for first in parts[0] for second in parts[1]])
        values = rng.normal(size=(case.side**2, case.width))
        numbers = rng.normal(size=case.width)
        tally, unseen_tally = [0], [0]
        query = [_Counted(float(number), tally) for number in numbers]
        flat = _best(_scores([_Counted(float(number), unseen_tally) for number in numbers], keys), k)
        if case.how == "flat":
            chosen = _best(_scores(query, keys), k)
        elif case.how == "product keys":
            scores = [_scores(query[:half], parts[0]), _scores(query[half:], parts[1])]
            best = [_best(one, k) for one in scores]
            pairs = [(i, j) for i in best[0] for j in best[1]]
            order = _best([scores[0][i] + scores[1][j] for i, j in pairs], k)
            chosen = [case.side * pairs[place][0] + pairs[place][1] for place in order]
        else:
            chosen = flat  # the address is given
        gates = [_Counted(1.0 / k, tally) for _ in chosen]
        read = [
            math.fsum(gate.times(float(values[e, x])) for gate, e in zip(gates, chosen, strict=True))
            for x in range(case.width)
        ]
        right_answer = values[flat].mean(axis=0)
        return (
            float(tally[0]) if chosen == flat and np.allclose(read, right_answer, rtol=1e-12, atol=1e-12) else math.nan
        )

    def error_bound(self, case: Lookup) -> float:
        return 0.0


@dataclass(frozen=True)
class Descent:
    """Gates (n facts by M experts), targets, and a number of steps of gradient descent from zero values."""

    gates: tuple[tuple[float, ...], ...]
    targets: tuple[float, ...]
    steps: int

    def singular_values(self) -> np.ndarray:
        """All n, largest first."""
        return np.linalg.svd(np.array(self.gates), compute_uv=False)


@register
class Conditioning(Bound[Descent]):
    """Gradient descent on the squared loss with step 1/s_max^2 leaves at most (1 - s_min^2/s_max^2)^t of the residual
    after t steps, s_min and s_max the n-th and the first singular value of the n x M gates.
    """

    name, title, status, source = "T24", "Conditioning", "proved", "textbook"
    assumptions = ("squared loss", "n <= M", "all values start at zero, or anywhere")
    proof = (
        "The residual is multiplied by I - A A'/s_max^2 in each step, whose eigenvalues lie between 0 and "
        "1 - s_min^2/s_max^2; a residual along the last singular vector reaches it."
    )
    dropped = "cross-entropy (logistic) in place of the squared loss"
    tolerance = 1e-13

    def cases(self, draw: Draw) -> Descent:
        facts = draw.integer(1, 3)
        size = draw.integer(facts, 4)
        gates = tuple(tuple(draw.real(-1.0, 1.0) for _ in range(size)) for _ in range(facts))
        first = (draw.choice((1.0, 0.3)), *gates[0][1:])
        targets = (draw.choice((1.0, -1.0)), *(draw.real(-1.0, 1.0) for _ in range(facts - 1)))
        return Descent((first, *gates[1:]), targets, draw.integer(0, 30))

    def slack(self, case: Descent) -> float:
        gates, residual = np.array(case.gates), np.array(case.targets)
        singular = case.singular_values()
        start = float(np.linalg.norm(residual))
        for _ in range(case.steps):
            residual = residual - gates @ (gates.T @ residual) / singular[0] ** 2
        return self._allowed(case) * start - float(np.linalg.norm(residual))

    def control_slack(self, case: Descent) -> float:
        """Of each fact the sign of its target is learned; the residual is 1 - its probability."""
        gates, signs = np.array(case.gates), np.sign(np.array(case.targets)) + (np.array(case.targets) == 0.0)
        values = np.zeros(gates.shape[1])
        largest = case.singular_values()[0]
        for _ in range(case.steps):
            values += gates.T @ (signs * _wrong(signs * (gates @ values))) / largest**2
        left = float(np.linalg.norm(_wrong(signs * (gates @ values))))
        return self._allowed(case) * 0.5 * math.sqrt(len(signs)) - left

    def _allowed(self, case: Descent) -> float:
        singular = case.singular_values()
        return float(experts.residual_upper(case.steps, singular[-1], singular[0]))

    def witnesses(self) -> list[Descent]:
        return [Descent(((1.0, 0.0), (0.0, 2.0)), (1.0, 0.0), steps) for steps in (0, 1, 7)]


def _wrong(margins: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(margins))

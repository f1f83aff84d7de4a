"""The claim T26: the cost of clearing the mind, as printed and recomputed."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

from theory import cost
from theory.claims import Published, Record, register


@register
class CostOfClearing(Record):
    """A hundred epochs of 20 tokens per parameter over 400e9 parameters are 1.92e27 FLOP, 560 times the 3.43e24 that
    the paper prints; its 350 000 accelerators, 90 days and $68 million belong to the larger number: at 45 % of their
    peak they do 1.60e27, and the energy costs $68.0 million.
    """

    name, title, status, source = "T26", "The cost of clearing the mind", "quoted", "arXiv 2406.17642"
    assumptions = (
        "6 FLOP per parameter and token, 20 tokens per parameter",
        "MI300X: 1307 TFLOP/s dense bfloat16, 45 % of it used; 350 MW; $0.09 per kilowatt-hour",
    )
    proof = "Arithmetic. Days are said to agree within a quarter, since utilization is an estimate."
    largest_search = 20

    def published(self) -> list[Published]:
        parameters, hardware = 400e9, cost.HARDWARE["mi300x"]
        flop = cost.training_flop(parameters, cost.compute_optimal_tokens(parameters), epochs=100)
        days = flop / cost.cluster_flop(hardware, 350_000, 1.0, 0.45)
        megawatts = 350_000 * hardware.watts * (4.0 / 3.0) / 1e6
        return [
            Published("FLOP of 100 epochs", 3.43e24, flop, 0.05, agrees=False),
            Published("days on 350 000 MI300X at 45 %", 90.0, days, 0.25),
            Published("megawatts, a third above the accelerators' own", 350.0, megawatts, 0.01),
            Published("dollars of energy in 90 days", 68e6, cost.energy_price(350.0, 90.0, 0.09), 0.01),
        ]

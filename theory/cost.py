"""What it costs to train until nothing is hallucinated: operations, days, energy, money (T26).

Units: parameters and tokens are counts, operations are FLOP, power is in watts, energy in kilowatt-hours. These are the
usual estimates, not bounds: 6 operations per parameter and token (forward 2, backward 4), 20 tokens per parameter
(Hoffmann et al. 2022). Nothing is rounded to a side.
"""

import math
from dataclasses import dataclass

FLOP_PER_PARAMETER_AND_TOKEN = 6.0
TOKENS_PER_PARAMETER = 20.0
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Hardware:
    """One accelerator: its peak of dense bfloat16 operations per second, and the power its maker states."""

    name: str
    flop_per_second: float
    watts: float
    source: str


HARDWARE = {
    "a100": Hardware("NVIDIA A100 80 GB SXM", 312e12, 400.0, "NVIDIA A100 data sheet"),
    "h100": Hardware("NVIDIA H100 SXM", 989.4e12, 700.0, "NVIDIA H100 data sheet, without sparsity"),
    "h200": Hardware("NVIDIA H200 SXM", 989.4e12, 700.0, "NVIDIA H200 data sheet, without sparsity"),
    "mi250x": Hardware("AMD Instinct MI250X", 383e12, 560.0, "AMD Instinct MI250X data sheet"),
    "mi300x": Hardware("AMD Instinct MI300X", 1307.4e12, 750.0, "AMD Instinct MI300X data sheet, without sparsity"),
}


@dataclass(frozen=True)
class TrainingCost:
    """What a training run takes. `days` is with all accelerators at once."""

    tokens: float
    flop: float
    accelerator_days: float
    days: float
    megawatts: float
    kilowatt_hours: float
    price: float  # of the energy, in the currency of the price of a kilowatt-hour


def compute_optimal_tokens(parameters: float) -> float:
    """Tokens of one epoch, 20 per parameter.

    >>> compute_optimal_tokens(400e9)
    8000000000000.0
    """
    return TOKENS_PER_PARAMETER * _positive("parameters", parameters)


def training_flop(parameters: float, tokens: float, epochs: float = 1.0) -> float:
    """Operations 6 P T of every epoch (Kaplan et al. 2020).

    >>> training_flop(400e9, compute_optimal_tokens(400e9), epochs=100)
    1.92e+27
    """
    per_token = FLOP_PER_PARAMETER_AND_TOKEN * _positive("parameters", parameters)
    return _positive("the number of operations", per_token * _positive("tokens", tokens) * _positive("epochs", epochs))


def cluster_flop(hardware: Hardware, accelerators: float, days: float, utilization: float) -> float:
    """Operations that many accelerators do in that many days at this share of their peak.

    >>> f"{cluster_flop(HARDWARE['mi300x'], 350_000, 90, 0.45):.2e}"
    '1.60e+27'
    """
    seconds = _positive("days", days) * SECONDS_PER_DAY
    return hardware.flop_per_second * _share(utilization) * _positive("accelerators", accelerators) * seconds


def energy_price(megawatts: float, days: float, price_per_kilowatt_hour: float) -> float:
    """Price of drawing this power for this long.

    >>> round(energy_price(350, 90, 0.09))
    68040000
    """
    return megawatts * 1000.0 * days * 24.0 * price_per_kilowatt_hour


def training_cost(
    parameters: float,
    *,
    hardware: Hardware,
    accelerators: float,
    tokens: float | None = None,
    epochs: float = 100.0,
    utilization: float = 0.45,
    overhead: float = 4.0 / 3.0,
    price_per_kilowatt_hour: float = 0.09,
) -> TrainingCost:
    """Cost of `epochs` passes over `tokens` (20 per parameter if not given).

    `overhead` is watts drawn in all per watt of accelerators; at 4/3 an MI300X takes the kilowatt that arXiv 2406.17642
    counts for it.

    >>> cost = training_cost(400e9, hardware=HARDWARE["mi300x"], accelerators=350_000)
    >>> round(cost.days), round(cost.megawatts), round(cost.price / 1e6)
    (108, 350, 82)
    """
    seen = compute_optimal_tokens(parameters) if tokens is None else tokens
    flop = training_flop(parameters, seen, epochs)
    accelerator_days = flop / cluster_flop(hardware, 1.0, 1.0, utilization)
    days = accelerator_days / _positive("accelerators", accelerators)
    megawatts = accelerators * hardware.watts * _positive("overhead", overhead) / 1e6
    if not 0.0 <= price_per_kilowatt_hour < math.inf:
        raise ValueError(f"price_per_kilowatt_hour must be >= 0 and finite, got {price_per_kilowatt_hour!r}")
    return TrainingCost(
        tokens=seen,
        flop=flop,
        accelerator_days=accelerator_days,
        days=days,
        megawatts=megawatts,
        kilowatt_hours=megawatts * 1000.0 * days * 24.0,
        price=energy_price(megawatts, days, price_per_kilowatt_hour),
    )


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)


def _share(utilization: float) -> float:
    if not 0.0 < utilization <= 1.0:
        raise ValueError(f"utilization must be in (0, 1], got {utilization!r}")
    return float(utilization)

"""The command `bounds cost`. Everything heavier than click is imported on use."""

import click

from theory.console import Refusal, print_json, shared_flags

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("cost")
@click.option("--parameters", type=_POSITIVE, default=400e9, show_default=True, help="Parameters of the network.")
@click.option("--tokens", type=_POSITIVE, help="Tokens of one epoch. [default: 20 per parameter]")
@click.option("--epochs", type=_POSITIVE, default=100.0, show_default=True, help="Passes over the tokens.")
@click.option("--hardware", default="mi300x", show_default=True, help="Accelerator; --list names the known ones.")
@click.option("--accelerators", type=_POSITIVE, default=350_000, show_default=True, help="How many of them.")
@click.option(
    "--utilization", type=_POSITIVE, default=0.45, show_default=True, help="Share of their peak that is used."
)
@click.option("--overhead", type=_POSITIVE, default=4 / 3, help="Watts in all per watt of accelerators. [default: 4/3]")
@click.option(
    "--price", type=click.FloatRange(0), default=0.09, show_default=True, help="Of a kilowatt-hour, in your currency."
)
@shared_flags("json", "list")
def cost(
    parameters: float,
    tokens: float | None,
    epochs: float,
    hardware: str,
    accelerators: float,
    utilization: float,
    overhead: float,
    price: float,
    as_json: bool,
    list_names: bool,
) -> None:
    """What it takes to train until nothing is hallucinated: operations, days, energy, money.

    Estimates, not bounds: 6 operations per parameter and token, 20 tokens per parameter.

    \b
    Example:
      loss-threshold bounds cost --parameters 400e9 --epochs 100 --hardware mi300x
      loss-threshold bounds cost --parameters 8e9 --tokens 15e12 --epochs 1 --hardware h100 --accelerators 1024 --json
    """
    from dataclasses import asdict

    from theory.cost import HARDWARE, training_cost

    if list_names:
        _list_hardware(as_json)
        return
    if hardware.lower() not in HARDWARE:
        raise Refusal(f"no hardware is called {hardware}; known are {', '.join(HARDWARE)}")
    machine = HARDWARE[hardware.lower()]
    try:
        result = training_cost(
            parameters,
            hardware=machine,
            accelerators=accelerators,
            tokens=tokens,
            epochs=epochs,
            utilization=utilization,
            overhead=overhead,
            price_per_kilowatt_hour=price,
        )
    except (ValueError, OverflowError) as error:
        raise Refusal(f"{error}; see --help") from error
    if as_json:
        print_json({"hardware": asdict(machine), **asdict(result)})
        return
    click.echo(f"{epochs:g} epochs of {result.tokens:.4g} tokens in {parameters:.4g} parameters, on {machine.name}")
    for name, value in (
        ("operations", f"{result.flop:.4g} FLOP"),
        ("one accelerator", f"{result.accelerator_days:.4g} days at {100 * utilization:.4g} % of its peak"),
        (f"{accelerators:g} of them", f"{result.days:.4g} days at {result.megawatts:.4g} MW"),
        ("energy", f"{result.kilowatt_hours / 1e6:.4g} GWh, price {result.price:.4g}"),
    ):
        click.echo(f"  {name:<18}{value}")


def _list_hardware(as_json: bool) -> None:
    from dataclasses import asdict

    from theory.cost import HARDWARE

    if as_json:
        print_json({key: asdict(machine) for key, machine in HARDWARE.items()})
        return
    for key, machine in HARDWARE.items():
        peak = f"{machine.flop_per_second / 1e12:g} TFLOP/s bfloat16"
        click.echo(f"{key:<8}{machine.name:<24}{peak:<28}{machine.watts:g} W   {machine.source}")

"""The command `doctor`: what is installed, what it runs on, and what is missing for what."""

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from theory.console import print_json, shared_flags

_NEEDED = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "scipy",
    "matplotlib",
    "click",
    "rich",
    "jaxtyping",
    "safetensors",
)
# module -> (what it is for, how to get it)
_OPTIONAL = {
    "pyarrow": ("Parquet files in export, judge and figures", "loss-threshold[parquet]"),
    "openai": ("real models in `imagine llm`", "loss-threshold[llm]"),
    "sklearn": ("TF-IDF indexes in `experiment retrieval`", "loss-threshold[retrieval]"),
    "faiss": ("dense indexes in `experiment retrieval`", "loss-threshold[retrieval]"),
    "hypothesis": ("shrinking counterexamples in verify", "the dependency group test"),
    "mpmath": ("fifty-digit references in the tests", "the dependency group test"),
    "torch": ("the benchmarks' peer", "the dependency group benchmark"),
}


@click.command(short_help="Versions, devices, cache, and what is missing for what.")
@shared_flags("json")
def doctor(as_json: bool) -> None:
    """Say what this installation has and lacks.

    \b
    Example:
      loss-threshold doctor --json
    """
    report = examine()
    if as_json:
        print_json(report)
        return
    for section in ("versions", "machine", "cache"):
        click.echo(section)
        for name, value in report[section].items():
            click.echo(f"  {name:<14}{value}")
    click.echo("optional")
    for name, found in report["optional"].items():
        state = found["version"] or f"missing; install {found['remedy']}"
        click.echo(f"  {name:<14}{state}: {found['purpose']}")
    if report["missing"]:
        click.echo(f"missing and needed: {', '.join(report['missing'])}; install loss-threshold again")
        raise SystemExit(1)


def examine() -> dict[str, Any]:
    """What `doctor` prints, as one document."""
    versions = {"loss-threshold": _version("loss-threshold"), "python": platform.python_version()}
    versions |= {name: _version(name) for name in _NEEDED}
    missing = [name for name, found in versions.items() if found is None]
    return {
        "versions": versions,
        "machine": _machine() if "jax" not in missing and "jaxlib" not in missing else {"system": platform.platform()},
        "cache": _cache(),
        "optional": {
            name: {"version": _version(name), "purpose": purpose, "remedy": remedy}
            for name, (purpose, remedy) in _OPTIONAL.items()
        },
        "missing": missing,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return "present" if importlib.util.find_spec(package) else None


def _machine() -> dict[str, str]:
    import jax

    from sims.sweep import workers

    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "backend": jax.default_backend(),
        "devices": ", ".join(str(device) for device in jax.devices()),
        "workers": f"{workers()} (threads that train side by side)",
    }


def _cache() -> dict[str, str]:
    from sims.runtime import cache_folder

    folder = cache_folder()
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    size = sum(file.stat().st_size for file in files)
    return {"folder": _with_tilde(folder), "programs": f"{len(files)}, {size / 1e6:.1f} MB; safe to delete"}


def _with_tilde(path: Path) -> str:
    return str(Path("~") / path.relative_to(Path.home())) if path.is_relative_to(Path.home()) else str(path)

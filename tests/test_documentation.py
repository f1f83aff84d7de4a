"""Examples in the texts and docstrings run; commands that the README shows exist; `--help` stays light."""

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from figures.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    module.name
    for package in ("sims", "figures", "mome_jax")
    for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("readme", ["README.md", "mome_jax/README.md"])
def test_readme_examples_run(readme):
    result = doctest.testfile(str(ROOT / readme), module_relative=False)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("loss-threshold ")]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_readme_commands_parse(words):
    """Every command that the README shows is taken as it stands, flags and values; it is not run."""
    command, context = main, click.Context(main)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, name
        context = click.Context(command, parent=context, info_name=name)
    with command.make_context(command.name, words):
        pass


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself_with_an_example(verb):
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert "loss-threshold " + verb in result.output
    assert "Example" in result.output


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom figures.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "sys.exit(bool({'jax', 'numpy', 'scipy', 'matplotlib', 'flax'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_scalar_theory_imports_no_jax():
    script = "import sys, theory.decoding, theory.capacity, theory.judge; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_arrows_point_one_way():
    allowed = {"theory": {"theory"}, "mome_jax": {"mome_jax"}, "sims": {"sims", "theory", "mome_jax"}}
    ours = {"theory", "sims", "mome_jax", "figures", "tests"}
    for package, may in allowed.items():
        for file in (ROOT / package).rglob("*.py"):
            imported = re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert set(imported) & ours <= may, f"{file.name} imports {set(imported) & ours - may}"


def test_doctor_reports_this_installation():
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert re.search(r"jax\s+0\.", result.output)
    assert "cpu" in result.output

"""The examples in the docstrings of the theory."""

import doctest
import importlib
import pkgutil

import pytest

import theory

MODULES = [f"theory.{module.name}" for module in pkgutil.iter_modules(theory.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples():
    found = doctest.DocTestFinder().find(importlib.import_module("theory.decoding"))
    assert sum(bool(test.examples) for test in found) >= 7

"""Experiments that test the theory: facts, small networks, grids of training runs, and one store for what happened."""

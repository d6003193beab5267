"""Tests of the executor of PTX, and of every kernel in it."""

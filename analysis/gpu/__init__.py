"""Measurements on a GPU: ``python -m analysis.gpu`` (its docstring says how to run it)."""

"""Measurements of speed and memory: ``python -m analysis.benchmark`` lists them."""

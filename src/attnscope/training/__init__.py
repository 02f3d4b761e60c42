"""Train a network by a recipe."""

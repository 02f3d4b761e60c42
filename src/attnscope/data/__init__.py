"""Labeled images: sources, splits, normalization and augmentation."""

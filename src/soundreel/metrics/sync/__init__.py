"""Measure how well sound and picture fit in time."""

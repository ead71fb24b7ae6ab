"""How well sound and picture fit in time."""

"""Rendered scenes with known truth: drawn and sounded from one event list, with numpy alone."""

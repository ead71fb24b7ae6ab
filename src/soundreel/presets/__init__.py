"""Presets by name: functions that return a complete configuration."""

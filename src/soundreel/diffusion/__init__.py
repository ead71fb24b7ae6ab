"""Schedules, the forward process, losses, samplers and guidance: functions on `AV`, no modules."""

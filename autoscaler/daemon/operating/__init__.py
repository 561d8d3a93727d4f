"""Operators' pauses and overrides."""

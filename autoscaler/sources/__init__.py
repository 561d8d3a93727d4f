"""Adapters that read metrics."""

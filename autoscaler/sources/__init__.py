"""Metric sources: adapters that read metrics."""

"""Trace files: reading, validation, digests."""

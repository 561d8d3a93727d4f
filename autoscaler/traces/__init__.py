"""Trace files: reading, importing, checking, shaping, describing, writing, digests."""

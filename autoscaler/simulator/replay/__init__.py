"""Replays of a policy on recorded traffic: prepared, run by either engine, and written to files."""

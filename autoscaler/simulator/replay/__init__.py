"""A policy on recorded traffic: prepared, run by either engine, and what is left of it."""

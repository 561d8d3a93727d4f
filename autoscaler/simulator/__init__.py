"""Simulation: generated traffic, runs on virtual time, baselines, sweeps and reports."""

"""Demand that is generated, or sampled from a running fleet."""

"""Scenarios: traffic, a cloud with faults, a policy, events along the way, and the expected outcome."""

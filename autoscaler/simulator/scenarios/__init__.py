"""Scenarios: traffic, a cloud with bad days, a policy, what happens meanwhile, and what must come of it."""

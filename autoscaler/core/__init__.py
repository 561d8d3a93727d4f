"""Pure decisions in numpy: no I/O, clock, randomness, logging, async or pydantic.

Two entry points: `forecast.step` (vectorised over series) and `decide.decide` (vectorised over lanes).
"""

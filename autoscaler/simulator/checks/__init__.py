"""Checks of a policy's simulation before its figures are believed: each gives a verdict and a reason."""

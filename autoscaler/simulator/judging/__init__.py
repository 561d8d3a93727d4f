"""Evaluation of runs: sums, the score card, peers, and the cheapest schedule in hindsight."""

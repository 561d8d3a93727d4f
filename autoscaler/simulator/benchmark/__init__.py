"""The benchmark: policies on recorded demand against all peers at their best settings and the cheapest schedule in hindsight."""

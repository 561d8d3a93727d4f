"""The benchmark of policies: recorded demand, all peers at their best setting, and the cheapest schedule in hindsight."""

"""What a run is judged by: sums, the score card, peers, and the cheapest schedule that knows the future."""

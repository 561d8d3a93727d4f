"""From decisions to provider calls and their outcomes: starts, stops, and draining before stops."""

"""From a decision to calls that are made, and to their outcomes: starts, stops, and leaving in two steps."""

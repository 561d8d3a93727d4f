"""The lane engine: thousands of simulated fleets of counts at once."""

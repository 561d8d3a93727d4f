"""Many variants: sweeps, walk-forward, recommendations, and where they are run."""

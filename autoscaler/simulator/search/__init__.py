"""Search over variants: sweeps, walk-forward, recommendations, and where they run."""

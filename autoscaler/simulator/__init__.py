"""Generated traffic, virtual runs and baselines."""

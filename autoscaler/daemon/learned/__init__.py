"""What the daemon learns over hours and days, and how it is kept across restarts."""

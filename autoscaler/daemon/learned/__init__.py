"""What is learned over hours and days, and how it is kept over restarts."""

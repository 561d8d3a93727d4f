"""The loop that observes, decides, records and acts."""

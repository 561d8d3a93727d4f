"""What operators pause and override."""

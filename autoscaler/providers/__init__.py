"""Adapters that list VMs and change their state."""

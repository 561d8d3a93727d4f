"""Providers: adapters that list VMs and change their state."""

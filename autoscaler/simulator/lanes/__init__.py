"""The lane engine: thousands of simulated fleets at once, as counts of VMs."""

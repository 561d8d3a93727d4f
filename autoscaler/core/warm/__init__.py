"""The warm pool of fleets with an objective: how many VMs should wait stopped, and how many of those hibernated, by prices."""

"""The warm pool of fleets with an objective: by prices, how many VMs wait stopped, and how many of them hibernated."""

"""The warm pool: VMs are made, prepared, tried, kept fresh and deleted."""

"""The warm pool: making, preparing, exercising, refreshing and deleting VMs."""

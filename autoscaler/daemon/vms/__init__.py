"""What the daemon knows about each VM: its orders, what the cloud lists, how long things take, and cost."""

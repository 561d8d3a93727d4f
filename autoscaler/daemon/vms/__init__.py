"""What the daemon knows of each VM: what was asked for, what the cloud says, how long it takes, what it costs."""

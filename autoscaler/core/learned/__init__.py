"""What is learned about VMs: start times, capacity per VM, and which VMs are slow or silent."""

"""What is learned of VMs: how long starts take, what one VM can do, and which are slow or silent."""

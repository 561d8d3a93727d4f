"""The embedded cloud: a world of single VMs, and an EC2 endpoint on it."""

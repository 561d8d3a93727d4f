"""Starts and stops already provisioned VMs to meet demand."""

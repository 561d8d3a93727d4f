"""The command line and composition root: wires adapters to the daemon; one module per command group."""

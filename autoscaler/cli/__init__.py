"""The composition root: wires adapters to the daemon; one module per command group."""

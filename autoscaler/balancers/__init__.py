"""Load balancers in front of fleets (`ports.Balancer`): HAProxy, an operator's command, and a simulated one."""

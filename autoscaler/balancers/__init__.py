"""Load balancers in front of fleets (`ports.Balancer`): HAProxy, a command of the operator's, one for simulations."""

"""Published and shipped autoscaling rules, as deciders on the plant: what a policy has to beat."""

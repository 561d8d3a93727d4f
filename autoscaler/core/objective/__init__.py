"""Fleets with an objective: VMs are valued by forecast and prices, and competing models decide who sizes the fleet.

`economic` is the stage of the chain. `pricing` gives or finds the price of shortage, and `worth` reads a law as a number of VMs.
`models` lists the models that compete, and `competition` lets the one drive that would lately have cost least.
"""

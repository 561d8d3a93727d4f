"""Fleets with an objective: VMs are counted by what they are worth, and models compete for who counts them.

`economic` is the stage of the chain. `pricing` gives or finds the price of shortage, `worth` reads a law as a number of VMs, `models`
names who competes, and `experts` lets the one drive that would lately have cost least.
"""

"""Rules that others ship or published, as deciders on the plant: what a policy must beat to be worth its while."""

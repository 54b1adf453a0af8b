"""Long runs under random faults. ``make soak`` prints the seed of each, to run it again."""

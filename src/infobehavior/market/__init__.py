"""A simulated seller market, to experiment in where the paper's own log isn't public (sections 4.1.1 and 4.2.1)."""

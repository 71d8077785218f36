"""Fusion of the representation with other features, for the online tasks (sections 4.3 and 4.4.2)."""

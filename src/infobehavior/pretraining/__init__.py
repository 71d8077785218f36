"""Pre-training (sections 3.4 and 4.1)."""

"""Event logs: their schema, the reading of them, and minute-level aggregation (section 3.1.1)."""

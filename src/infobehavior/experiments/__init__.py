"""The paper's experiments, on any log with labels."""

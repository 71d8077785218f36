"""The encoder: minute embedding, span CNN and bidirectional Transformer (sections 3.1.2 and 3.2)."""

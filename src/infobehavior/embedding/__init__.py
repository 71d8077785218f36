"""The embeddings table and the scikit-learn transformer."""

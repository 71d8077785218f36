"""A night: new and late events become minutes, and the embeddings of a day are made (section 4.3)."""

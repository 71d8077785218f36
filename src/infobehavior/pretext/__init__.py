"""The pretext tasks of section 3.3: tensors in, a scalar out."""

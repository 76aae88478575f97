"""How tensors are obtained from a model, and how it is left as it was."""

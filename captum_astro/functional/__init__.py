"""The maths of each method on plain tensors."""

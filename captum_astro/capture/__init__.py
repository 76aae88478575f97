"""How tensors are recorded from a model, and how the model's state is restored."""

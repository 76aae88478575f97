"""Models that ship with the package, their training, and loading by name."""

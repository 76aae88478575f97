"""ViTA against the plain model, by maps of where people looked: the search for a setting, and one setting evaluated."""

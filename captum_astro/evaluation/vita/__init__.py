"""ViTA compared with the plain model on human attention maps: the search over settings, and one setting evaluated."""

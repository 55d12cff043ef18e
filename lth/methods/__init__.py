"""What the papers do to a population: initialise, prune, rewind."""

"""Every trained replica and every long measure once, under a name that says what decided it."""

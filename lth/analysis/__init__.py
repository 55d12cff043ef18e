"""What the papers measure on a population. Every table carries the population's own columns."""

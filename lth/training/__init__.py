"""From a plan to trained networks: recipe, batches, loss, step, groups of replicas, checkpoints, the name of a run."""

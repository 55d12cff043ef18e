"""Many machines: what a store lacks, trained and measured on a Ray cluster (`lth.cluster.machines.Cluster`)."""

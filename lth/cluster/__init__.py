"""Many machines: what a store lacks, trained and measured on a Ray cluster (`lth.cluster.machines.Cluster`)."""

import os

# Ray's cluster asks for a token where its machine has one, but shows its own only if told before it is loaded
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or os.path.exists(
    os.path.expanduser("~/.ray/auth_token")
):
    os.environ.setdefault("RAY_AUTH_MODE", "token")

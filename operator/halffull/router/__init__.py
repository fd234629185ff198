"""The routing sidecar (`halffull router`): the data path and what surrounds it."""

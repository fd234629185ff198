"""Routers of one ModelDeployment and the workers of one pod tell each other of their books."""

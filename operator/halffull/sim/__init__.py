"""The engine model and the simulated engine built on it (`halffull engine`)."""

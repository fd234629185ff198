"""Adapters of inference engines: one pure file each, named in `catalog`. Imports nothing, so that an engine can load parts."""

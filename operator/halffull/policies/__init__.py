"""Policies pick the replica of one request: one pure file each, named in `catalog`."""

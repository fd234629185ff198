"""Orderings pick which queued request is offered next: one pure file each, named in `catalog`."""

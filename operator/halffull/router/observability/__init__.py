"""What the router says of itself: counters, metrics, status, spans, logs, recordings."""

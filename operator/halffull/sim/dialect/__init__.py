"""The APIs that a simulated engine speaks: request body to Generation, answer to JSON or server-sent events."""

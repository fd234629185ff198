"""What scheduling and engines need to know of a request: read of its body, hashed, counted, ranked."""

"""HTTP/1.1 on both sides: what clients send, what engines answer, what we write. Knows nothing of scheduling."""

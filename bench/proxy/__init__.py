"""The router next to other proxies: `compare` runs it; load generator and stub engine are Go programs."""

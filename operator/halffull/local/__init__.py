"""halffull without a cluster: `up`, `demo` and `load`."""

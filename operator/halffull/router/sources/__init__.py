"""Where configuration and endpoints come from: files, the API server, fixed addresses, what engines answer to a probe."""

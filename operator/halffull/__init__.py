"""halffull: a Kubernetes operator and router for replicas of large language models. Imports nothing."""

"""The operator (`halffull operator`): from custom resources to Kubernetes objects and the routers' configuration."""

"""The one typed model: custom resources, RouterConfig, and what is generated from them."""

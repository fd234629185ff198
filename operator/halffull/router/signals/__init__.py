"""What engines say of themselves: metrics, model lists, health, KV events."""

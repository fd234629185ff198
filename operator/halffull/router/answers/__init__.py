"""What engines answer: held back until it starts, understood as far as needed, continued elsewhere when its replica is lost."""

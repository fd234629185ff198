"""Which scheduler is ahead, and by how much: the goals of the project, judged by the simulator. `judge` runs it."""

"""Pure state and decisions shared by the router and the simulator; standard library only."""

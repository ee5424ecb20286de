"""How a run trains: its modules, its phases and the loss terms of a step."""

"""How a run trains: each strategy declares its modules, phases and losses; the one loop does."""

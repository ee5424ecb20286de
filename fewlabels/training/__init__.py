"""The loop discover -> train -> evaluate, and what it writes into the run folder."""

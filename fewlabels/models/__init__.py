"""Models that a run trains, and what keeps or averages them."""

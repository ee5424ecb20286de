"""A recipe in, a run folder out; studies, evaluation and cards of run folders."""

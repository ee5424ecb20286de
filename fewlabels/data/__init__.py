"""Images: where they come from, which of them train, in which order and through which views."""

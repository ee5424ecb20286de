"""What the commands do; a file is a family of them, and imports torch only when one is called."""

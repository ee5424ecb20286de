"""The commands, and the demo page; torch is imported only by a command that needs it."""

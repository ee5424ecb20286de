"""Model cards, and runs pushed to the Hugging Face Hub."""

"""Files to and from the Hugging Face Hub, with its errors as sentences."""

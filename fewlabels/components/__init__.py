"""All that a recipe can name: a folder a kind; a file is called as the recipe calls it."""

"""How an image is moved, cropped or coloured before a step sees it."""

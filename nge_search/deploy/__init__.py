"""What a finished training is good for: exports, predictions on images, and what an architecture is."""

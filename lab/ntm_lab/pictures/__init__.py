"""Pictures of recordings: in the terminal, as PNG and SVG, and as one HTML page."""

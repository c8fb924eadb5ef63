"""Programs that hold the real memory and find their place in it by content."""

"""Files of recorded sequences, and what can be read from a recording."""

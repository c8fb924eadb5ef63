"""Programs that count: a table by the last bits, from which the next bit is predicted."""

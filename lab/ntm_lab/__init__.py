"""Look at what served networks do: recordings, pictures, deciphering, and the command `ntm`."""

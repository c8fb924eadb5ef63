"""Find the program that a network runs, in what its heads do, and measure whether it is true."""

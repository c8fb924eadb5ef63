"""What operators start the service from, and in `generate` the programs that write some of it."""

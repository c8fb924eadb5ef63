"""The commands of networks that the project trains itself, each in a file of its name."""

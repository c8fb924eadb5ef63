"""The commands of networks that ntm-export trains, each in a file of its name."""

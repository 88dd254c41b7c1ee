"""The benchmark that anyone can repeat: `make bench`."""

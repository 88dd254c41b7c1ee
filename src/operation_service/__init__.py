"""The operation service: hands out the right to operate on n0stack's resources."""

"""What a user would pick instead: each with its own client for Python, which takes a lock and gives it back."""

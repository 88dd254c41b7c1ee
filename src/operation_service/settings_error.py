"""What is raised when the service is told what it cannot do."""


class SettingsError(ValueError):
    """A flag is wrong: one line that says which, and what it must be."""

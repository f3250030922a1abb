"""What a command answers when it cannot be carried out."""


class Failure(Exception):
    """A command that cannot be carried out; its text is the answer."""

"""The one kind of error of files that hold data."""


class DataError(ValueError):
    """A file is damaged, cut short or not what it should be; the message names the file, and where in it."""

"""The one kind of error of files that hold data."""

_MOST_SHOWN = 200


class DataError(ValueError):
    """A file is damaged, cut short or not what it should be; the message names the file, and where in it."""


def reason(error: BaseException) -> str:
    """What an error of another library says, which may quote all of a file, as part of a message for people."""
    text = str(error) or type(error).__name__
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."

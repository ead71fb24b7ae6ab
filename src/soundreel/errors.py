"""The base of all errors that the user of the package can put right."""


class SoundreelError(ValueError):
    """An argument, setting or file cannot be used; the message says which one, why, what to do.

    The command line prints the message in one line and ends with exit code 2, and work on many
    clips leaves the clip out. Any other exception but an `OSError` is a defect of the package: it
    ends the work with its traceback.
    """

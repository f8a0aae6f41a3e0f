"""Errors a user can act on; the command line prints their text and nothing else."""

NOT_FINITE = "NaN or infinite"  # stands in every error about such features or weights


class DensescopeError(Exception):
    """Base of every error this package raises on purpose.

    The message is one sentence or two: what is wrong, where, and what to do about it.

    Attributes:
        is_of_option: whether an option has a value that no checkpoint of the run can take.
    """

    is_of_option = False


class InputError(DensescopeError):
    """An argument or a tensor is not what the function can work with."""


class OptionError(InputError):
    """An option has a value that cannot be, whatever the files hold."""

    is_of_option = True


class CheckpointError(DensescopeError):
    """A checkpoint file cannot be read, does not fit its format or not its architecture."""


class DataError(DensescopeError):
    """Images or labels are missing, unreadable or do not fit each other."""


class RecordError(DensescopeError):
    """A stored record is missing, damaged, or belongs to another run."""

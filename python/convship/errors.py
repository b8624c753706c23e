"""Exceptions that callers may want to tell apart. Each message is one line that says what to do."""


class ModelFileError(ValueError):
    """A file that is damaged, or no convship model."""


class ModelFileNotFoundError(ModelFileError, FileNotFoundError):
    """There is no such model file."""


class ImageError(ValueError):
    """An image that cannot be read: not a JPEG or PNG, damaged, or beyond the limits."""


class ExportError(ValueError):
    """A model that cannot be shipped as it is."""

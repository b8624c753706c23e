"""The version, from the installed package; CMakeLists.txt is where it is written."""

from importlib.metadata import version

__version__ = version("convship")

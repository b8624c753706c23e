"""Where the time of one call goes: operators in Python, steps in the native program."""

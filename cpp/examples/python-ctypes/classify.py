"""Classifies images through the C interface, with nothing but Python's ctypes.

classify.py LIBCONVSHIP MODEL IMAGE...
"""

from __future__ import annotations

import ctypes as c
import sys


class Prediction(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("label", c.c_char_p),
        ("index", c.c_int64),
        ("probability", c.c_float),
    )


def load_library(path: str) -> c.CDLL:
    """Declare what is called: ctypes takes everything for an int otherwise."""
    lib = c.CDLL(path)
    lib.convship_last_error.restype = c.c_char_p
    lib.convship_model_load.argtypes = (c.c_char_p, c.c_void_p, c.POINTER(c.c_void_p))
    lib.convship_model_free.argtypes = (c.c_void_p,)
    lib.convship_predict_files.argtypes = (
        *(c.c_void_p, c.POINTER(c.c_char_p), c.c_size_t, c.c_int32),
        c.POINTER(c.c_void_p),
    )
    lib.convship_predictions_get.argtypes = (
        *(c.c_void_p, c.c_size_t, c.c_size_t),
        c.POINTER(Prediction),
    )
    lib.convship_predictions_free.argtypes = (c.c_void_p,)
    return lib


def main(library: str, path: str, *images: str) -> None:
    lib = load_library(library)

    def check(status: int) -> None:
        if status != 0:
            print(f"classify: {lib.convship_last_error().decode()}", file=sys.stderr)
            sys.exit(status)

    model, found = c.c_void_p(), c.c_void_p()
    check(lib.convship_model_load(path.encode(), None, c.byref(model)))
    paths = (c.c_char_p * len(images))(*(image.encode() for image in images))
    check(lib.convship_predict_files(model, paths, len(images), 1, c.byref(found)))
    for index, image in enumerate(images):
        best = Prediction(struct_size=c.sizeof(Prediction))
        check(lib.convship_predictions_get(found, index, 0, c.byref(best)))
        print(f"{image}: {best.label.decode()} {best.probability:.4f}")
    lib.convship_predictions_free(found)
    lib.convship_model_free(model)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Writes a JPEG to the path in argv[1] that costs as much to decode as a photograph of ImageNet.

500x375 pixels, about 110 kB. Spectra of photographs fall with 1/f in amplitude (Field, "Relations
between the statistics of natural images and the response properties of cortical cells", 1987);
noise with that spectrum has about as many coefficients to decode, and needs no data set.
"""

import sys

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500

random = np.random.default_rng(0)
frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
frequency[0, 0] = 1
shape = (HEIGHT, WIDTH)
planes = [np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) / frequency, shape)
          for _ in range(3)]  # fmt: skip
light, *colours = (plane / plane.std() for plane in planes)
# Colours of photographs vary less than light.
channels = [light + 0.3 * colour for colour in (colours[0], colours[1], -colours[0])]
pixels = np.clip(128 + 50 * np.stack(channels, -1), 0, 255).astype(np.uint8)
Image.fromarray(pixels).save(sys.argv[1], quality=89)

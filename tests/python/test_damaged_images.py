"""Damaged images and bombs, by the ten thousand, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# In the long run 180,000 and more.
COUNT = int(os.environ.get("CONVSHIP_DAMAGED_IMAGES", "20000"))
SEED = os.environ.get("CONVSHIP_SEED", "1")


def test_damaged_images_are_errors_or_equal_pillow():
    result = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("damage_images.py"),
            *("--count", str(COUNT), "--seed", SEED),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout)
    print(report)
    counts = report["counts"]
    assert sum(counts.values()) >= COUNT + 30
    # The damage must reach all the ways that there are.
    for way in ("cut: damaged", "flipped: damaged", "flipped: as Pillow", "bomb: refused"):
        assert counts[way] >= 20, counts
    assert report["leaked_kib"] <= 1024

# For the scripts beside this folder, after steps.sh and scripts/setup.

# install_extra NAME: what the installed package's extra asks for, without building
# the package again.
install_extra() {
  local packages
  mapfile -t packages < <(.venv/bin/python - "$1" <<'PYTHON'
import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

for each in map(Requirement, requires("convship")):
    if each.marker and not each.marker.evaluate() and each.marker.evaluate({"extra": sys.argv[1]}):
        each.marker = None
        print(each)
PYTHON
  )
  ((${#packages[@]})) || stop "convship has no extra $1"
  quietly .venv/bin/python -m pip install --disable-pip-version-check "${packages[@]}"
}

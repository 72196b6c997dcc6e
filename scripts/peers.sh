#!/bin/sh
# Makes one venv per peer that the benchmarks compare with, because their redis pins clash. Called by `make peers`.
# benchmarks/peers/NAME.txt lists what to install; .peers/NAME is where it goes. Names as arguments make only those.
set -eu
python="$1"
shift
[ $# -gt 0 ] || set -- benchmarks/peers/*.txt
for each in "$@"; do
    name=$(basename "$each" .txt)
    wants="benchmarks/peers/$name.txt"
    if [ -f ".peers/$name/.installed" ] && cmp -s "$wants" ".peers/$name/.installed"; then
        continue
    fi
    echo "Installing the peer $name into .peers/$name."
    rm -rf ".peers/$name"
    "$python" -m venv ".peers/$name"
    ".peers/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wants"
    cp "$wants" ".peers/$name/.installed"
done

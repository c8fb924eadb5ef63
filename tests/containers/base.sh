# shellcheck shell=bash
# Sourced by `run`: have the Dockerfile's base image, or a stand-in where its registry is out of reach.

base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
stand_in_label=ntm.stand-in

# Debian's own Python 3.11 under the name of the official image. As slim as that: no documentation,
# no translations, nothing that apt has downloaded.
make_stand_in() {
    if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
        echo "$base cannot be pulled (build/pull.log), and a stand-in takes root and debootstrap:" >&2
        echo "  apt-get install --no-install-recommends debootstrap" >&2
        exit 1
    fi
    if ! [ -f build/base.tar ]; then
        rm -rf build/rootfs
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
            build/rootfs >build/debootstrap.log
        ln -s python3 build/rootfs/usr/bin/python
        tar --create --directory build/rootfs --exclude='./usr/share/doc/*' \
            --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
            --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
            --file build/base.tar.part .
        mv build/base.tar.part build/base.tar
        rm -rf build/rootfs
    fi
    "$ENGINE" import --change "LABEL $stand_in_label=debootstrap" \
        --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        build/base.tar "$base" >build/import.log 2>&1
}

SECONDS=0
mkdir -p build
if ! "$ENGINE" image inspect "$base" >build/pull.log 2>&1; then
    timeout 300 "$ENGINE" pull --quiet "$base" >build/pull.log 2>&1 || make_stand_in
fi
if [ "$("$ENGINE" image inspect --format "{{index .Config.Labels \"$stand_in_label\"}}" "$base")" \
    = debootstrap ]; then
    echo "NOTE: $base is a stand-in made by debootstrap here, not the official image"
fi
echo "base image: $SECONDS s"

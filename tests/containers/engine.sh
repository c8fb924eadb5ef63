# shellcheck shell=bash
# Sourced by `run`: find a container engine that can run containers here, as ENGINE.

debian_packages="podman runc conmon netavark aardvark-dns catatonit iptables debootstrap"
if command -v podman >/dev/null; then
    ENGINE=podman
elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    ENGINE=docker
else
    echo "There is no container engine: install Docker or Podman. On Debian:" >&2
    echo "  apt-get install --no-install-recommends $debian_packages" >&2
    exit 1
fi
export ENGINE

# Root without systemd, as in a virtual machine of a CI service or in another container: Podman's
# defaults ask for what is missing there. Everything that it stores is under build/.
if [ $ENGINE = podman ] && [ "$(id -u)" = 0 ] && ! [ -d /run/systemd/system ]; then
    if ! command -v runc >/dev/null || ! command -v iptables >/dev/null; then
        echo "Podman needs runc where there is no systemd, and iptables to publish ports. On Debian:" >&2
        echo "  apt-get install --no-install-recommends $debian_packages" >&2
        exit 1
    fi
    folder=$PWD/build/containers
    mkdir -p "$folder"
    # Limits that need no privilege; runc, since crun refuses where both versions of cgroups are.
    cat >"$folder/containers.conf" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
END
    cat >"$folder/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$folder/storage"
runroot = "$folder/run"
END
    export CONTAINERS_CONF=$folder/containers.conf CONTAINERS_STORAGE_CONF=$folder/storage.conf
    export BUILDAH_ISOLATION=chroot
fi

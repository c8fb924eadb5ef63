# shellcheck shell=bash
# Sourced by `build` and `run`, after engine.sh and base.sh: build the image as IMAGE.

# A build with Podman sees the package index as this machine does: through its proxy, by its
# certificates.
flags=()
if [ "$ENGINE" = podman ]; then
    for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ -f "$file" ] && flags+=("--volume $file:$file:ro")
    done
fi
SECONDS=0
make --no-print-directory image ENGINE="$ENGINE" IMAGE="$IMAGE" IMAGE_FLAGS="${flags[*]}" \
    >build/image.log 2>&1 || { cat build/image.log; exit 1; }
echo "image: $SECONDS s"

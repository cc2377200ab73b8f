#!/bin/sh
# Installs the Debian packages that the tests and the demo use as real parts.
# Without root or apt it says what will be skipped, and lets the rest continue.
set -eu
packages="python3-venv systemd docker.io docker-registry cloud-init apache2-utils busybox-static openssl tmux chromium-headless-shell"

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done 2>/dev/null
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "No apt here: tests that need a real registry, Docker Engine or cloud-init are skipped." >&2
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "Not root: tests that need$missing are skipped. To run them: sudo apt-get install$missing" >&2
    exit 0
fi
# A newly installed cloud-init must not take this machine for a new instance at its next boot, and no
# package may start a daemon here: the tests start their own.
case "$missing" in *cloud-init*) mkdir -p /etc/cloud; touch /etc/cloud/cloud-init.disabled ;; esac
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "Installing$missing"
log=$(mktemp)
if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends $missing; } > "$log" 2>&1 < /dev/null; then
    tail -20 "$log" >&2
    exit 1
fi
rm -f "$log"

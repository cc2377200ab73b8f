"""Which proxy a request goes through, by the rules of the Docker Engine.

Source: pkg.go.dev/golang.org/x/net/http/httpproxy. The standard library's own rules for NO_PROXY
know no networks, such as 10.0.0.0/8.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass


def is_local(host: str) -> bool:
    """Tell whether Docker takes this host for its own machine: 127.0.0.0/8, localhost."""
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    address = _address(name)
    return name == "localhost" or bool(address and address.is_loopback)


def proxy_for(scheme: str, host: str, port: int) -> SplitResult | None:
    """Return the URL of the proxy for requests to a host, None if there is none."""
    proxies = getproxies()
    url = proxies.get(scheme, "")
    if not url or is_local(host):
        return None
    # Without NO_PROXY the system's own settings may have exceptions, as those of macOS.
    if bypasses(proxies["no"], host, port) if "no" in proxies else proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return parts if parts.hostname else None


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Tell whether NO_PROXY names a host: "*", a domain, an address or a network, maybe a port."""
    address = _address(host)
    for entry in filter(None, (one.strip().lower() for one in no_proxy.split(","))):
        if entry == "*":
            return True
        if "/" in entry:
            with suppress(ValueError):
                if address and address in ipaddress.ip_network(entry, strict=False):
                    return True
            continue
        name, wanted = _without_port(entry)
        if wanted and wanted != str(port):
            continue
        if _address(name) or address:
            if _address(name) == address:
                return True
            continue
        name = name.removeprefix("*")
        if host.endswith(name if name.startswith(".") else f".{name}") or host == name:
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _without_port(entry: str) -> tuple[str, str]:
    """Return (host, port) of "host", "host:port", "[::1]:port" and "::1"."""
    host, colon, port = entry.rpartition(":")
    if colon and (":" not in host or host.startswith("[")):
        return host.strip("[]"), port
    return entry.strip("[]"), ""
